package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
)

// ClaimsFile is the file in data_dir that lists, one JSON object a line, every
// message that was claimed and not settled when a process ended: the upper bound of
// what a crash may repeat. Each start adds its lines before it puts the messages back, so
// a start that was killed in between is followed by one that adds the same lines
// again, with the same number of claims. The oldest lines leave when the file exceeds 16 MiB.
//
//	{"time":"2026-11-22T03:48:04Z","message":"deliveries/d/messages/m","message_id":"token@bounce.brand.example","claims":1}
const ClaimsFile = "claimed-unsettled.jsonl"

// maxClaimsFile bounds the file, in octets.
const maxClaimsFile = 16 << 20

// claimLine is a line of ClaimsFile.
type claimLine struct {
	Time      time.Time `json:"time"`
	Message   string    `json:"message"`
	MessageID string    `json:"message_id"`
	Claims    int       `json:"claims"` // lost to crashes so far
}

// appendClaims adds the lines of one start. The file is replaced as a whole, so
// that a crash leaves the old one or the new one.
func appendClaims(fs vfs.FS, path string, lost []mta.LostClaim, now time.Time) error {
	if len(lost) == 0 {
		return nil
	}
	content, err := readAll(fs, path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	for _, l := range lost {
		line, err := json.Marshal(claimLine{Time: now.UTC(), Message: l.Name, MessageID: l.MessageID, Claims: l.Claims})
		if err != nil {
			return err
		}
		content = append(append(content, line...), '\n')
	}
	return replaceFile(fs, path, newest(content, maxClaimsFile))
}

// newest keeps the last whole lines within a size.
func newest(content []byte, size int) []byte {
	if len(content) <= size {
		return content
	}
	content = content[len(content)-size:]
	return content[bytes.IndexByte(content, '\n')+1:]
}

func readAll(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// replaceFile writes a file durably under another name and moves it into place.
func replaceFile(fs vfs.FS, path string, content []byte) error {
	temporary := path + ".new"
	f, err := fs.Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", temporary, err)
	}
	if err := fs.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := fs.OpenDir(fs.PathDir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
