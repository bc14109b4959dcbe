package compose

import (
	"fmt"
	"strings"
)

// reserved names the header fields that extra headers may not set, with what to
// do instead. A name that ends in a hyphen stands for all that begin so.
var reserved = map[string]string{
	"from":                      "set from",
	"to":                        "set to_name; the address is the recipient's",
	"reply-to":                  "set reply_to",
	"subject":                   "set subject",
	"list-id":                   "set list_id",
	"list-unsubscribe":          "set unsubscribe_url",
	"list-unsubscribe-post":     "set unsubscribe_url; it is added to it",
	"feedback-id":               "it is composed of campaign, tenant, class and sender",
	"date":                      "it is the time of the first attempt",
	"message-id":                "it carries the token that ties bounces to the message",
	"cc":                        "add each person as a recipient",
	"bcc":                       "add each person as a recipient",
	"sender":                    "set from",
	"return-path":               "it is the token at the bounce domain",
	"received":                  "it is written by the servers a message passes",
	"mime-version":              "it follows from the content",
	"content-":                  "it follows from the content",
	"dkim-":                     "the message is signed with the key of its From domain",
	"domainkey-":                "the message is signed with the key of its From domain",
	"arc-":                      "it is written by the servers a message passes",
	"authentication-results":    "it is written by the servers a message passes",
	"received-spf":              "it is written by the servers a message passes",
	"delivered-to":              "it is written by the servers a message passes",
	"resent-":                   "a campaign is not resent mail",
	"disposition-notification-": "receipts cannot be asked for in bulk",
}

func reservedFor(name string) (remedy string, found bool) {
	name = strings.ToLower(name)
	if remedy, found = reserved[name]; found {
		return remedy, true
	}
	for prefix, remedy := range reserved {
		if strings.HasSuffix(prefix, "-") && strings.HasPrefix(name, prefix) {
			return remedy, true
		}
	}
	return "", false
}

func (c *compiler) headers(extra []Header) []header {
	if len(extra) > MaxHeaders {
		c.refuse("headers", "", fmt.Sprintf("has %d entries", len(extra)), fmt.Sprintf("keep at most %d", MaxHeaders))
		return nil
	}
	var all []header
	for i, h := range extra {
		field := fmt.Sprintf("headers[%d]", i)
		if !isFieldName(h.Name) {
			c.refuse(field+".name", h.Name, "is no header name", fmt.Sprintf("use 1 to %d printable ASCII characters without spaces and colon (RFC 5322 section 3.6.8)", maxHeaderName))
			continue
		}
		if remedy, found := reservedFor(h.Name); found {
			c.refuse(field+".name", h.Name, "cannot be set as an extra header", remedy)
			continue
		}
		if f := c.template(field+".value", h.Value, 2*MaxHeaderValue); f != nil {
			all = append(all, header{name: h.Name, value: f})
		}
	}
	return all
}

// isFieldName is the ftext of RFC 5322 section 3.6.8.
func isFieldName(s string) bool {
	if s == "" || len(s) > maxHeaderName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return true
}
