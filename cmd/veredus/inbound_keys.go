package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/returnpath"
)

// readKeysFile reads the return path keys that a node wrote: a key a line, its id and its
// secret in hexadecimal. Errors name the line, never a secret.
func readKeysFile(path string) (*returnpath.Keys, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

func parseKeys(data []byte) (*returnpath.Keys, error) {
	var all []returnpath.Key
	number := 0
	for line := range bytes.Lines(data) {
		number++
		words := strings.Fields(string(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		key, ok := parseKey(words)
		if !ok {
			return nil, fmt.Errorf("line %d is no key; give an id of 0 to 255 and a secret of 64 hexadecimal digits, as the node writes them to data_dir/returnpath.keys", number)
		}
		all = append(all, key)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no key in it; give a node's data_dir/returnpath.keys")
	}
	return returnpath.NewKeys(all[0], all[1:]...)
}

func parseKey(words []string) (key returnpath.Key, ok bool) {
	if len(words) != 2 || len(words[1]) != hex.EncodedLen(len(key.Secret)) {
		return key, false
	}
	id, err := strconv.ParseUint(words[0], 10, 8)
	if err != nil {
		return key, false
	}
	key.ID = byte(id)
	_, err = hex.Decode(key.Secret[:], []byte(words[1]))
	return key, err == nil
}

// messageOf names the message of a token, as far as a token does.
func messageOf(ref returnpath.Ref) string {
	return "messages/" + mta.MessageID{Handover: ref.Handover, Domain: ref.Domain, Lane: ref.Lane, Order: ref.Order}.String()
}
