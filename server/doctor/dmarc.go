package doctor

import (
	"context"
	"strings"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/mta/route"
)

// dmarc is the DMARC policy that holds for a From domain (RFC 7489 section 6.3).
type dmarc struct {
	at         string // the domain whose record it is
	records    int    // of that domain; with more than one there is no policy
	policy     string // none, quarantine or reject; of subdomains where that applies
	strictDKIM bool
	strictSPF  bool
	reports    bool // somebody gets reports
	mistake    string
}

// readDMARC finds the policy: of the From domain, else of its organisation (RFC 7489
// section 6.6.3).
func readDMARC(ctx context.Context, d DNS, from string) (dmarc, error) {
	for _, domain := range []string{from, route.OrganizationalDomain(from)} {
		a, err := d.Lookup(ctx, "_dmarc."+domain, dns.TypeTXT)
		if err != nil {
			return dmarc{}, err
		}
		var records []string
		for _, t := range a.Texts {
			version, _, _ := strings.Cut(t, ";")
			if strings.Join(strings.Fields(version), "") == "v=DMARC1" {
				records = append(records, t)
			}
		}
		if len(records) > 0 {
			p := parseDMARC(records[0], domain != from)
			p.at, p.records = domain, len(records)
			return p, nil
		}
	}
	return dmarc{}, nil
}

func parseDMARC(text string, sub bool) (p dmarc) {
	tags := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		tags[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	p.policy = strings.ToLower(tags["p"])
	if s := tags["sp"]; sub && s != "" {
		p.policy = strings.ToLower(s)
	}
	p.strictDKIM = strings.EqualFold(tags["adkim"], "s")
	p.strictSPF = strings.EqualFold(tags["aspf"], "s")
	p.reports = tags["rua"] != ""
	switch p.policy {
	case "none", "quarantine", "reject":
	default:
		p.mistake = "its policy p=" + clip(p.policy, 40) + " is none of none, quarantine and reject"
	}
	return p
}

// aligned reports whether an authenticated domain vouches for the From domain (RFC
// 7489 section 3.1).
func aligned(domain, from string, strict bool) bool {
	if strict {
		return domain == from
	}
	return route.OrganizationalDomain(domain) == route.OrganizationalDomain(from)
}
