package address

import (
	"encoding/base32"
	"errors"
	"strings"
	"unicode/utf8"
)

// EntriesPrefix begins the resource names of entries.
const EntriesPrefix = "addressEntries/"

// maxName bounds what ParseEntryName looks at: the longest key has an address of 64
// and 253 octets (of which folding may make some more), a tenant of 63 and a List-Id of 255.
const maxName = 2 << 10

// nameEncoding is base32 in lower case: safe in URLs, file names and where case gets lost.
var nameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// errEntryName is a text that is no entry's name.
var errEntryName = errors.New("address: no entry's name")

// EntryName is the resource name of the entry with the key: `addressEntries/{entry}`. It holds the
// key itself, so that it needs no index and names an entry that does not exist yet as well.
func EntryName(k Key) string {
	raw := make([]byte, 0, len(k.Folded)+len(k.Scope.Tenant)+len(k.Scope.List)+3)
	raw = append(append(raw, byte(k.Scope.Class)), k.Folded...)
	raw = append(append(raw, 0), k.Scope.Tenant...)
	raw = append(append(raw, 0), k.Scope.List...)
	return EntriesPrefix + nameEncoding.EncodeToString(raw)
}

// ParseEntryName reads what EntryName wrote, and nothing else: each key has one name.
func ParseEntryName(name string) (Key, error) {
	text, found := strings.CutPrefix(name, EntriesPrefix)
	if !found || len(text) > maxName {
		return Key{}, errEntryName
	}
	raw, err := nameEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 || !utf8.Valid(raw) {
		return Key{}, errEntryName
	}
	parts := strings.Split(string(raw[1:]), "\x00")
	if len(parts) != 3 {
		return Key{}, errEntryName
	}
	k := Key{Folded: parts[0], Scope: Scope{Tenant: parts[1], Class: Class(raw[0]), List: parts[2]}}
	if !k.plausible() || EntryName(k) != name {
		return Key{}, errEntryName
	}
	return k, nil
}

// plausible reports whether an entry could have the key.
func (k *Key) plausible() bool {
	local, domain, found := strings.Cut(k.Folded, "@")
	return found && local != "" && domain != "" &&
		(k.Scope.Class == Everything || k.Scope.Class == Marketing) &&
		(k.Scope.List == "" || k.Scope.Tenant != "") &&
		(k.Scope.Tenant == "" || slug(k.Scope.Tenant)) &&
		k.Scope.List == strings.ToLower(k.Scope.List) && len(k.Scope.List) <= maxListID
}
