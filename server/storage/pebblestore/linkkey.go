package pebblestore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/server/address"
)

// maxLinkKeys is how many keys of unsubscribe links are kept. None is ever dropped: a link
// must work for as long as somebody keeps the mail.
const maxLinkKeys = 1000

var metaLinkKeys = keyName(tableMeta, "unsubscribe-keys")

// UnsubscribeKeys are the keys of hosted unsubscribe links, the current one last. The
// first is made when they are asked for the first time.
func (s *Store) UnsubscribeKeys(ctx context.Context) (keys []address.LinkKey, err error) {
	err = s.submit(ctx, func(t *txn) error {
		if keys, err = t.s.linkKeys(); err != nil || len(keys) > 0 {
			return err
		}
		keys, err = t.addLinkKey(nil)
		return err
	})
	return keys, err
}

// RotateUnsubscribeKey adds a key, the one that new links use, and answers all.
func (s *Store) RotateUnsubscribeKey(ctx context.Context, req address.Request) (keys []address.LinkKey, err error) {
	err = s.submit(ctx, func(t *txn) error {
		r, err := t.s.addressRequest(req)
		if err != nil {
			return err
		}
		if keys, err = t.s.linkKeys(); err != nil {
			return err
		}
		if r != nil { // keys are only ever added: the answer was the first so many
			n := be64(r.answer)
			keys = keys[:min(uint64(len(keys)), n)]
			return nil
		}
		if keys, err = t.addLinkKey(keys); err != nil {
			return err
		}
		return t.remember(req.ID, requestRow{method: req.Method, body: req.Body[:], answer: number64(uint64(len(keys)))})
	})
	return keys, err
}

func (t *txn) addLinkKey(keys []address.LinkKey) ([]address.LinkKey, error) {
	if len(keys) >= maxLinkKeys {
		return nil, fmt.Errorf("pebblestore: there are %d keys of unsubscribe links, which is the most: links made with any of them must go on working, so none can be dropped; rotate less often", len(keys))
	}
	n := address.LinkKey{ID: 1}
	if len(keys) > 0 {
		n.ID = keys[len(keys)-1].ID + 1
	}
	_, _ = rand.Read(n.Secret[:]) // never fails
	keys = append(keys, n)
	t.set(metaLinkKeys, encodeLinkKeys(keys))
	return keys, nil
}

func (s *Store) linkKeys() (keys []address.LinkKey, err error) {
	row, err := s.get(metaLinkKeys)
	if err != nil {
		return nil, err
	}
	err = readRow(row, func(field protowire.Number, v value) error {
		if field != 1 {
			return nil
		}
		n := address.LinkKey{}
		if len(v.bytes) != 2+len(n.Secret) {
			return corrupt(errors.New("key of unsubscribe links"))
		}
		n.ID = binary.BigEndian.Uint16(v.bytes)
		copy(n.Secret[:], v.bytes[2:])
		keys = append(keys, n)
		return nil
	})
	return keys, err
}

func encodeLinkKeys(keys []address.LinkKey) (b []byte) {
	for _, k := range keys {
		b = putBytes(b, 1, slices.Concat(binary.BigEndian.AppendUint16(nil, k.ID), k.Secret[:]))
	}
	return b
}
