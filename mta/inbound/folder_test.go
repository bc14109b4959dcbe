package inbound

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func openFolder(t testing.TB, dir string, limits FolderLimits) *Folder {
	t.Helper()
	f, err := OpenFolder(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func noteAt(second int64) Note {
	return Note{Time: time.Unix(second, 0), Reason: ReasonNoToken, Kind: "bounce", Client: "192.0.2.7", Sender: "", Recipients: []string{"ann@corp.example.net"}}
}

func TestAMailIsKeptWithItsNote(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "unprocessed")
	f := openFolder(t, dir, FolderLimits{})
	if dropped, err := f.Keep(noteAt(1), []byte("Delivered-To: x\r\n"), []byte("Subject: y\r\n\r\n")); err != nil || dropped != 0 {
		t.Fatal(dropped, err)
	}
	got := names(t, dir)
	if len(got) != 2 || !strings.HasPrefix(got[0], "19700101T000001.000000000Z-") || !strings.HasSuffix(got[0], ".eml") || got[1] != strings.TrimSuffix(got[0], ".eml")+".json" {
		t.Fatalf("files %q", got)
	}
	mail, err := os.ReadFile(filepath.Join(dir, got[0]))
	if err != nil || string(mail) != "Delivered-To: x\r\nSubject: y\r\n\r\n" {
		t.Errorf("mail %q, %v", mail, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, got[1]))
	var note Note
	if err != nil || json.Unmarshal(text, &note) != nil || note.Reason != ReasonNoToken || note.Size != len(mail) || !note.Time.Equal(time.Unix(1, 0)) {
		t.Errorf("note %s, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(dir, got[0])); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if strings.Contains(strings.Join(got, " "), "ann") {
		t.Errorf("a name tells an address: %q", got)
	}
}

func TestTheOldestMailsGo(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir, FolderLimits{Mails: 3})
	for second := range int64(5) {
		dropped, err := f.Keep(noteAt(second), []byte("x"))
		if err != nil || dropped != int(max(0, min(1, second-2))) {
			t.Errorf("mail %d: %d dropped, %v", second, dropped, err)
		}
	}
	if got := names(t, dir); len(got) != 6 || !strings.HasPrefix(got[0], "19700101T000002") {
		t.Errorf("kept %q", got)
	}
	f = openFolder(t, dir, FolderLimits{Mails: 3}) // a restart goes on from what is there
	if err := os.Remove(filepath.Join(dir, names(t, dir)[0])); err != nil {
		t.Fatal(err)
	}
	if dropped, err := f.Keep(noteAt(9), []byte("x")); err != nil || dropped != 0 {
		t.Errorf("a mail that somebody took away counts as dropped: %d, %v", dropped, err)
	}
	if got := names(t, dir); len(got) != 6 || f.Len() != 3 {
		t.Errorf("kept %q", got)
	}
}

func TestTheFolderIsBoundedInBytes(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir, FolderLimits{Bytes: 10000})
	for second := range int64(10) {
		if _, err := f.Keep(noteAt(second), []byte(strings.Repeat("x", 4000))); err != nil {
			t.Fatal(err)
		}
	}
	if f.Len() != 2 {
		t.Errorf("%d mails kept, want 2", f.Len())
	}
	dropped, err := f.Keep(noteAt(100), []byte(strings.Repeat("x", 50000)))
	if err != nil || dropped != 2 || f.Len() != 1 {
		t.Errorf("%d dropped, %d kept, %v", dropped, f.Len(), err)
	}
	total := int64(0)
	for _, name := range names(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total != 10000 || f.bytes != total {
		t.Errorf("%d bytes on disk, %d counted, want the limit of 10000", total, f.bytes)
	}
}

func TestWhatAnInterruptionLeftIsRemovedAndOtherFilesAreNot(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir, FolderLimits{})
	if _, err := f.Keep(noteAt(1), []byte("x")); err != nil {
		t.Fatal(err)
	}
	const left = "19700101T000002.000000000Z-0123456789abcdef"
	for _, name := range []string{left + ".json", left + ".eml.partial", left + ".json.partial", "README.txt", "notes.json", "a.partial"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f = openFolder(t, dir, FolderLimits{})
	if got := names(t, dir); len(got) != 5 || f.Len() != 1 {
		t.Errorf("%d mails, files %q", f.Len(), got)
	}
}

func TestAFolderThatCannotBeWrittenSaysSo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(file, FolderLimits{}); err == nil {
		t.Error("a file was opened as a folder")
	}
	gone := openFolder(t, filepath.Join(dir, "gone"), FolderLimits{})
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Keep(noteAt(1), []byte("x")); err == nil || gone.Len() != 0 {
		t.Errorf("kept in a folder that is gone: %v, %d", err, gone.Len())
	}
}

func TestManyKeepAtOnce(t *testing.T) {
	f := openFolder(t, t.TempDir(), FolderLimits{Mails: 10})
	var wait sync.WaitGroup
	dropped := make([]int, 40)
	for i := range dropped {
		wait.Go(func() {
			var err error
			if dropped[i], err = f.Keep(noteAt(int64(i%7)), []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	sum := 0
	for _, n := range dropped {
		sum += n
	}
	if got := names(t, f.dir); sum != 30 || len(got) != 20 || f.Len() != 10 {
		t.Errorf("%d dropped, %d files, %d counted", sum, len(got), f.Len())
	}
}

func BenchmarkKeep(b *testing.B) {
	f := openFolder(b, b.TempDir(), FolderLimits{})
	mail := []byte(strings.Repeat("x", 10<<10))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Keep(noteAt(1), mail); err != nil {
			b.Fatal(err)
		}
	}
}
