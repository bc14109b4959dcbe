package inbound

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Note is what is known of a mail kept, and stands beside it as JSON.
type Note struct {
	// Time is when it came.
	Time time.Time `json:"time"`
	// Reason is why it is kept: one of the Reason constants. Detail says more, if there is more.
	Reason string `json:"reason"`
	Detail string `json:"detail,omitempty"`
	// Kind is what it was taken for.
	Kind string `json:"kind"`
	// Client is the address it was received from; Sender and Recipients are its envelope.
	Client     string   `json:"client"`
	Sender     string   `json:"sender"`
	Recipients []string `json:"recipients"`
	// Size is that of the mail in octets, also where only the beginning was kept.
	Size int `json:"size"`
}

// FolderLimits bound a Folder. A zero field means its default.
type FolderLimits struct {
	// Mails kept at most; 10,000 by default.
	Mails int
	// Bytes of mails and notes kept at most; 1 GiB by default. A single mail is cut to it.
	Bytes int64
}

// Folder keeps mail for people to look at: each as an .eml file with its Note
// beside it as .json, under names that sort by time and tell nothing about
// anybody. It is bounded: the oldest mails go when new ones need their place.
// Files may be taken away or moved at any time. Safe for concurrent use by one process.
type Folder struct {
	dir    string
	limits FolderLimits

	mu    sync.Mutex
	kept  []keptMail // the oldest first
	bytes int64
}

// keptMail is one mail of the folder.
type keptMail struct {
	name string // without extension
	size int64
}

// OpenFolder opens a folder, and makes it if need be. What an interrupted Keep left
// is removed.
func OpenFolder(dir string, limits FolderLimits) (*Folder, error) {
	if limits.Mails <= 0 {
		limits.Mails = 10000
	}
	if limits.Bytes <= 0 {
		limits.Bytes = 1 << 30
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of unprocessed mail: %w", err)
	}
	f := &Folder{dir: dir, limits: limits}
	if err := f.scan(); err != nil {
		return nil, fmt.Errorf("folder of unprocessed mail: %w", err)
	}
	return f, nil
}

// Extensions of the files.
const (
	mailExtension    = ".eml"
	noteExtension    = ".json"
	partialExtension = ".partial"
)

// scan reads what is in the folder. A note whose mail is missing was left by an
// interruption, or its mail was taken by somebody: it goes.
func (f *Folder) scan() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	var notes []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		name, extension := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())), filepath.Ext(e.Name())
		switch {
		case !isKeptName(name):
		case extension == partialExtension:
			_ = os.Remove(filepath.Join(f.dir, e.Name()))
		case extension == mailExtension:
			sizes[name] += info.Size()
			f.kept = append(f.kept, keptMail{name: name})
		case extension == noteExtension:
			sizes[name] += info.Size()
			notes = append(notes, name)
		}
	}
	for i := range f.kept {
		f.kept[i].size = sizes[f.kept[i].name]
		f.bytes += f.kept[i].size
	}
	for _, name := range notes {
		if !f.has(name) {
			_ = os.Remove(filepath.Join(f.dir, name+noteExtension))
		}
	}
	return nil
}

// find returns where a mail of that name stands or belongs.
func (f *Folder) find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(f.kept, name, func(k keptMail, name string) int { return strings.Compare(k.name, name) })
}

func (f *Folder) has(name string) bool {
	_, found := f.find(name)
	return found
}

// keptTime is the beginning of a name: 20260131T235959.123456789Z.
const keptTime = "20060102T150405.000000000Z"

// isKeptName reports whether a name is one of ours: other files are left alone.
func isKeptName(name string) bool {
	stamp, random, _ := strings.Cut(name, "-")
	random = strings.TrimSuffix(strings.TrimSuffix(random, mailExtension), noteExtension) // of a partial file
	_, err := time.Parse(keptTime, stamp)
	return err == nil && len(random) == 16
}

// Keep stores a mail, given in pieces, with its note, and returns once both are
// durable. dropped is how many of the oldest mails had to go for it. It blocks for
// three synced writes.
func (f *Folder) Keep(note Note, mail ...[]byte) (dropped int, err error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	name := note.Time.UTC().Format(keptTime) + "-" + hex.EncodeToString(random[:])
	note.Size = 0
	for _, piece := range mail {
		note.Size += len(piece)
	}
	text, err := json.MarshalIndent(note, "", "  ")
	if err != nil {
		return 0, fmt.Errorf("keep unprocessed mail: %w", err)
	}
	size, err := f.write(name, text, mail)
	if err != nil {
		return 0, fmt.Errorf("keep unprocessed mail: %w", err)
	}
	return f.account(keptMail{name, size}), nil
}

// write makes the two files durable: the note first, so that no mail is without one.
func (f *Folder) write(name string, note []byte, mail [][]byte) (size int64, err error) {
	note = append(note, '\n')
	room := f.limits.Bytes - int64(len(note))
	mail = slices.Clone(mail)
	for i := range mail {
		mail[i] = mail[i][:max(0, min(int64(len(mail[i])), room))]
		room -= int64(len(mail[i]))
		size += int64(len(mail[i]))
	}
	if err := f.writeFile(name+noteExtension, [][]byte{note}); err != nil {
		return 0, err
	}
	if err := f.writeFile(name+mailExtension, mail); err != nil {
		_ = os.Remove(filepath.Join(f.dir, name+noteExtension))
		return 0, err
	}
	return size + int64(len(note)), syncDir(f.dir)
}

// writeFile writes under another name, syncs and renames.
func (f *Folder) writeFile(name string, pieces [][]byte) (err error) {
	partial := filepath.Join(f.dir, name+partialExtension)
	file, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, piece := range pieces {
		if err == nil {
			_, err = file.Write(piece)
		}
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(partial, filepath.Join(f.dir, name))
	}
	if err != nil {
		_ = os.Remove(partial)
	}
	return err
}

// syncDir makes renames in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// account adds a mail to the folder's sum and removes the oldest ones beyond the
// limits. Only mails that were still there count as dropped.
func (f *Folder) account(k keptMail) (dropped int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, _ := f.find(k.name)
	f.kept = slices.Insert(f.kept, at, k)
	f.bytes += k.size
	beyond := 0
	for len(f.kept)-beyond > f.limits.Mails || f.bytes > f.limits.Bytes && len(f.kept)-beyond > 1 {
		old := f.kept[beyond]
		beyond++
		f.bytes -= old.size
		if err := os.Remove(filepath.Join(f.dir, old.name+mailExtension)); !errors.Is(err, fs.ErrNotExist) {
			dropped++
		}
		_ = os.Remove(filepath.Join(f.dir, old.name+noteExtension))
	}
	f.kept = slices.Delete(f.kept, 0, beyond)
	return dropped
}

// Len is how many mails the folder holds, as far as nobody took any away.
func (f *Folder) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept)
}
