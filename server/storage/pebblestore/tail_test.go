package pebblestore

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/server/feedback"
)

// What memory answers of the last events is what the disk answers, at every place and in
// every size; what memory has no more is on disk.
func TestTheTailIsTheDisk(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	recovered, err := s.Recover(t.Context(), time.Now())
	check(t, err)
	for written := 0; written < tailSize+500; {
		b := mta.Batch{Epoch: recovered.Epoch}
		for range 300 {
			b.Events = append(b.Events, mta.RelayEvent{
				Kind: mta.PathSuspendedEvent, Time: time.Unix(int64(written), 0), Source: "s1",
				Destination: fmt.Sprintf("d%d.test", written%7), Text: fmt.Sprint("rests ", written),
			})
			written++
		}
		_, err := s.Write(t.Context(), &b)
		check(t, err)
	}
	_, end := s.Ends()
	for at := uint64(0); at < end[0]; at += 97 {
		for _, size := range []int{1, 1000, 16 << 10} {
			records, next, err := s.Records(t.Context(), feedback.Positions{at}, size)
			check(t, err)
			octets := 0
			for i := range records {
				if octets >= size {
					t.Fatalf("position %d, %d octets: event %d comes behind %d", at, size, i, octets)
				}
				octets += records[i].Size()
			}
			if octets < size && next[0] != end[0] {
				t.Fatalf("position %d, %d octets: ends at %v with %d", at, size, next, octets)
			}
			disk, err := s.readEvents(at, end[0], budget{events: len(records), octets: 1 << 30})
			check(t, err)
			if len(records) == 0 || !reflect.DeepEqual(records, disk) {
				t.Fatalf("position %d: memory and disk differ", at)
			}
		}
	}
	check(t, s.Close())
}
