package unsubscribe

import (
	"fmt"

	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/returnpath"
)

// Path parts the base of a link from its token: a link is base + Path + token.
const Path = "/u/"

// Mailbox is the local part of the address that takes unsubscribes by mail.
const Mailbox = "unsubscribe"

// Link is the claim's URL for List-Unsubscribe (RFC 8058 section 3.1). base is how readers reach
// the listener, https://host or https://host/path. A claim that would make the link
// longer than a header line holds (compose.MaxURL) is sealed without delivery and message: the address
// still gets off its list, but no event tells which mail did it. If that is too long as well,
// which takes an address or base of several hundred octets, the error is an ErrTooLong.
//
// The link of a message is the same at every attempt, unless the key was changed
// between them; then both work.
func Link(base string, k *Keys, c Claim) (string, error) {
	url, err := link(base, k, c)
	if err != nil {
		c.Delivery, c.Message = "", returnpath.Ref{}
		url, err = link(base, k, c)
	}
	return url, err
}

// Mailto is the claim's mailto: URL, which names the token in its subject: for those who have
// no browser, and for mail programs that know RFC 2369 only. domain is the bounce domain, whose
// mail comes to us. It is empty where it does not fit: the header can do without it.
func Mailto(domain string, k *Keys, c Claim) string {
	token, err := k.Seal(c)
	to := "mailto:" + Mailbox + "@" + domain + "?subject=" + token
	if err != nil || len(to) > compose.MaxURL {
		return ""
	}
	return to
}

func link(base string, k *Keys, c Claim) (string, error) {
	token, err := k.Seal(c)
	if err != nil {
		return "", err
	}
	if n := len(base) + len(Path) + len(token); n > compose.MaxURL {
		return "", fmt.Errorf("%w: it has %d octets (at most %d)", ErrTooLong, n, compose.MaxURL)
	}
	return base + Path + token, nil
}
