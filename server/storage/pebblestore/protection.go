package pebblestore

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/server/campaign"
)

// Watch reads a delivery as its protection sees it, with its figures at the
// destinations named; nil are all. It costs microseconds for a delivery that the relay has.
// What it tells may be a moment ahead of what is durable; a change that follows from
// it is written behind it. campaign.ErrNotFound.
func (s *Store) Watch(id string, destinations []string) (campaign.Watched, error) {
	no, err := s.readNumber(keyName(tableDeliveryID, id))
	if err != nil {
		return campaign.Watched{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delivery(no)
	if err != nil {
		return campaign.Watched{}, err
	}
	if no == 0 || d == nil {
		return campaign.Watched{}, notFound(id)
	}
	return d.Watch(destinations), nil
}

// Fields of what a delivery's protection remembers; each of 2 to 4 is one entry of a map.
const (
	protectionHeld = iota + 1
	protectionExcused
	protectionWarned
	protectionAlike
)

func encodeProtection(p *campaign.Protection) []byte {
	b := putString(nil, protectionHeld, p.Held)
	for _, name := range slices.Sorted(maps.Keys(p.Excused)) {
		f := p.Excused[name]
		row := putString(nil, 1, name)
		for i, n := range []int64{f.Attempts, f.Sent, f.Hard, f.AuthRejections, f.Complaints, f.ContentRejections} {
			row = putInt(row, protowire.Number(i+2), n)
		}
		b = putBytes(b, protectionExcused, row)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Warned)) {
		b = putBytes(b, protectionWarned, putTime(putString(nil, 1, key), 2, p.Warned[key]))
	}
	for _, wording := range slices.Sorted(maps.Keys(p.Alike)) {
		row := putString(nil, 1, wording)
		b = putBytes(b, protectionAlike, putString(row, 2, strings.Join(p.Alike[wording], "\n")))
	}
	return b
}

func decodeProtection(row []byte) (p campaign.Protection, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case protectionHeld:
			p.Held = v.string()
		case protectionExcused:
			return decodeExcused(v.bytes, &p)
		case protectionWarned:
			return decodeWarned(v.bytes, &p)
		case protectionAlike:
			return decodeAlike(v.bytes, &p)
		}
		return nil
	})
	return p, err
}

func decodeExcused(row []byte, p *campaign.Protection) error {
	var name string
	var f campaign.Figures
	plain := []*int64{&f.Attempts, &f.Sent, &f.Hard, &f.AuthRejections, &f.Complaints, &f.ContentRejections}
	err := readRow(row, func(field protowire.Number, v value) error {
		switch {
		case field == 1:
			name = v.string()
		case int(field)-2 < len(plain):
			*plain[field-2] = v.int()
		}
		return nil
	})
	if p.Excused == nil {
		p.Excused = map[string]campaign.Figures{}
	}
	p.Excused[name] = f
	return err
}

func decodeWarned(row []byte, p *campaign.Protection) error {
	key, at, err := pair(row)
	if p.Warned == nil {
		p.Warned = map[string]time.Time{}
	}
	p.Warned[key] = at.time()
	return err
}

func decodeAlike(row []byte, p *campaign.Protection) error {
	wording, givers, err := pair(row)
	if p.Alike == nil {
		p.Alike = map[string][]string{}
	}
	p.Alike[wording] = strings.Split(givers.string(), "\n")
	return err
}

// pair reads an entry of a map: its key and its value.
func pair(row []byte) (key string, v value, err error) {
	err = readRow(row, func(field protowire.Number, is value) error {
		switch field {
		case 1:
			key = is.string()
		case 2:
			v = is
		}
		return nil
	})
	return key, v, err
}
