package pebblestore

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// strictFS ends the process when a sync fails, whichever file it is of. Behind a failed
// sync nobody knows what the disk holds, and the next sync may succeed without having written
// what the failed one lost (the kernel marks such pages clean), so that to try again
// would acknowledge what is gone. Pebble itself ends the process for its log and manifest,
// tries again for tables, and panics in a goroutine of its own for its markers.
type strictFS struct {
	vfs.FS
	fail func(error)
}

// Unwrap implements vfs.FS.
func (s *strictFS) Unwrap() vfs.FS { return s.FS }

// Create implements vfs.FS.
func (s *strictFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	return s.file(name, f, err)
}

// OpenReadWrite implements vfs.FS.
func (s *strictFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, category, opts...)
	return s.file(name, f, err)
}

// OpenDir implements vfs.FS.
func (s *strictFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	return s.file(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (s *strictFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, category)
	return s.file(name, f, err)
}

func (s *strictFS) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &strictFile{File: f, name: name, fail: s.fail}, nil
}

// strictFile is a file whose failed syncs are told.
type strictFile struct {
	vfs.File
	name string
	fail func(error)
}

// Sync implements vfs.File.
func (f *strictFile) Sync() error { return f.check(f.File.Sync()) }

// SyncData implements vfs.File.
func (f *strictFile) SyncData() error { return f.check(f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f *strictFile) SyncTo(length int64) (whole bool, err error) {
	whole, err = f.File.SyncTo(length)
	return whole, f.check(err)
}

func (f *strictFile) check(err error) error {
	if err != nil {
		f.fail(fmt.Errorf("syncing %s: %w", f.name, err))
	}
	return err
}
