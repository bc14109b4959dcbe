package mxrules

import (
	"fmt"
	"slices"
	"strings"
)

// Provider is a mailbox provider, known by the names of its MX hosts.
type Provider struct {
	// Name is lower case letters, digits, ".", "-" and "_"; rules, metrics and
	// reports use it.
	Name string
	// Suffixes of MX host names, each with a leading dot: ".google.com" covers
	// every host below google.com and google.com itself.
	Suffixes []string
	// SharedHosts says that its hosts receive for many organisations that have nothing
	// to do with each other: what such a host refuses may be one organisation's own word
	// (its filter, its block list), so a path to it rests for the recipient's domain
	// first, and as a whole only when several unrelated domains say the same.
	SharedHosts bool
	// OwnDomains are recipient domains of the provider itself, in lower case: what is
	// said about mail to them is the provider's word.
	OwnDomains []string
}

// maxOwnDomains bounds the own domains of one provider.
const maxOwnDomains = 1000

// SharesHosts reports whether the provider receives mail for the domain, an A-label in
// lower case, on hosts that serve other organisations as well.
func (set *Rules) SharesHosts(provider, domain string) bool {
	for i := range set.providers {
		if p := &set.providers[i]; p.Name == provider {
			return p.SharedHosts && !slices.Contains(p.OwnDomains, domain)
		}
	}
	return false
}

// maxSuffixes bounds the suffixes of one provider.
const maxSuffixes = 1000

// ProviderOf is the provider whose suffix the MX host has, the longest suffix
// winning; "" when no provider is known.
func (set *Rules) ProviderOf(mxHost string) string {
	host := trimDot(mxHost)
	name, longest := "", 0
	for i := range set.providers {
		p := &set.providers[i]
		for _, s := range p.Suffixes {
			if len(s) > longest && underSuffix(host, s) {
				name, longest = p.Name, len(s)
			}
		}
	}
	return name
}

func underSuffix(host, suffix string) bool {
	return hasSuffixFold(host, suffix) ||
		len(host) == len(suffix)-1 && hasSuffixFold(suffix, host)
}

// Check reports whether name and suffixes are well formed.
func (p Provider) Check() error {
	if err := checkName(p.Name); err != nil {
		return fmt.Errorf("provider: %w", err)
	}
	if len(p.Suffixes) == 0 || len(p.Suffixes) > maxSuffixes {
		return fmt.Errorf("provider %s must have 1 to %d MX suffixes", p.Name, maxSuffixes)
	}
	for _, s := range p.Suffixes {
		if err := checkSuffix(s); err != nil {
			return fmt.Errorf("provider %s: %w", p.Name, err)
		}
	}
	if len(p.OwnDomains) > maxOwnDomains {
		return fmt.Errorf("provider %s has %d own domains; use at most %d", p.Name, len(p.OwnDomains), maxOwnDomains)
	}
	if len(p.OwnDomains) > 0 && !p.SharedHosts {
		return fmt.Errorf("provider %s has own_domains; they are of use only with shared_hosts: true", p.Name)
	}
	for _, d := range p.OwnDomains {
		if err := checkOwn(d); err != nil {
			return fmt.Errorf("provider %s: %w", p.Name, err)
		}
	}
	return nil
}

// checkOwn reports a text that is no domain name in lower case.
func checkOwn(domain string) error {
	if err := checkSuffix("." + domain); err != nil || strings.ToLower(domain) != domain || strings.Contains(domain, "..") {
		return fmt.Errorf(`own domain %.40q must be a domain name in lower case, like "gmail.com"`, domain)
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("name %.40q must have 1 to 64 characters", name)
	}
	for i := range len(name) {
		if !nameByte(name[i]) || lower(name[i]) != name[i] {
			return fmt.Errorf(`name %.40q has %q; use lower case letters, digits, ".", "-" and "_"`, name, name[i])
		}
	}
	return nil
}

func checkSuffix(s string) error {
	if len(s) < 2 || len(s) > 253 || s[0] != '.' || s[1] == '.' || s[len(s)-1] == '.' {
		return fmt.Errorf(`MX suffix %.40q must be a host name with a leading dot, like ".google.com"`, s)
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return fmt.Errorf(`MX suffix %.40q has %q; use letters, digits, ".", "-" and "_"`, s, s[i])
		}
	}
	return nil
}

func (p Provider) equal(o Provider) bool {
	return p.Name == o.Name && slices.Equal(p.Suffixes, o.Suffixes) &&
		p.SharedHosts == o.SharedHosts && slices.Equal(p.OwnDomains, o.OwnDomains)
}
