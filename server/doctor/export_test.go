package doctor

import (
	"context"
	"net/netip"
)

// Read reads an answer as the client does.
var Read = read

// SPF evaluates a policy.
func SPF(ctx context.Context, d DNS, ip netip.Addr, domain, helo string) (result, why string) {
	r, why := checkSPF(ctx, d, ip, domain, helo)
	return string(r), why
}

// SuggestSPF is the record to publish.
var SuggestSPF = suggestSPF
