package protect

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mta/smtpc"
)

// maxWording bounds a wording, in octets.
const maxWording = 200

// wordingOf brings a reply into the form in which the rejections of different mails
// are the same: its codes, a colon, and its text without what varies.
func wordingOf(r smtpc.Reply) string {
	wording := codes(r) + ": " + bounce.Normalise(r.Text)
	if len(wording) <= maxWording {
		return wording
	}
	end := maxWording
	for !utf8.RuneStart(wording[end]) {
		end--
	}
	return wording[:end]
}

// codes are a reply's, such as "550 5.7.515". A remote server wrote the second.
func codes(r smtpc.Reply) string {
	code := strconv.Itoa(r.Code)
	if r.Enhanced == "" || len(r.Enhanced) > len("5.999.999") || strings.Trim(r.Enhanced, "0123456789.") != "" {
		return code
	}
	return code + " " + r.Enhanced
}

// codesOf are the codes of a wording.
func codesOf(wording string) string {
	code, _, _ := strings.Cut(wording, ":")
	return code
}

// organisation is who runs a recipient domain.
func organisation(domain string) string { return route.OrganizationalDomain(strings.ToLower(domain)) }
