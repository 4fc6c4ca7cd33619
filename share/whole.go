package share

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// createWhole writes a file of a directory that is being built. What is there is
// what an earlier get has left, and was found to be wrong.
func createWhole(in *os.Root, base string, f *smallFile, data []byte, _ bool) (fileIdentity, error) {
	mode := f.attrs.mode(f.entry.Executable)
	file, err := in.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		if err = in.Remove(base); err == nil {
			file, err = in.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		}
	}
	if err != nil {
		return fileIdentity{}, noSpace(err)
	}
	defer file.Close()
	if err := writeWhole(file, data); err != nil {
		return fileIdentity{}, err
	}
	f.attrs.setTime(in, base)
	info, err := file.Stat()
	if err != nil {
		return fileIdentity{}, err
	}
	return sysIdentity(info), nil
}

func writeWhole(file *os.File, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	_, err := file.Write(data)
	return noSpace(err)
}

// placeWhole writes a file into a directory that is in use: beside its name
// first, and there at once. What has its name, or the partial file's, is
// fs.ErrExist, but that with replace it may have the name.
func placeWhole(in *os.Root, base string, f *smallFile, data []byte, replace bool) (fileIdentity, error) {
	p := &partial{root: in, name: base, temp: partialName(base), mode: f.attrs.mode(f.entry.Executable), attrs: f.attrs}
	var err error
	if p.file, err = in.OpenFile(p.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fileIdentity{}, noSpace(err)
	}
	err = writeWhole(p.file, data)
	if err == nil {
		err = p.finish(replace)
	}
	if err != nil {
		p.discard()
		return fileIdentity{}, err
	}
	defer p.close()
	info, err := p.file.Stat()
	if err != nil {
		return fileIdentity{}, err
	}
	return sysIdentity(info), nil
}

// openDir keeps the directory of the last file open for the next. It is for one
// goroutine.
type openDir struct {
	path string
	root *os.Root // of path; nil: none
}

// open returns the directory at path below root. It is good until the next call.
func (d *openDir) open(root *os.Root, path string) (*os.Root, error) {
	if path == "." {
		return root, nil
	}
	if d.root != nil && d.path == path {
		return d.root, nil
	}
	d.close()
	var err error
	if d.root, err = root.OpenRoot(filepath.FromSlash(path)); err != nil {
		return nil, err
	}
	d.path = path
	return d.root, nil
}

func (d *openDir) close() {
	if d.root != nil {
		d.root.Close()
	}
	d.root = nil
}

// madeDirs makes each directory once. Its methods may be called from several
// goroutines.
type madeDirs struct {
	root *os.Root

	mu   sync.Mutex // guards last, and keeps the making of one directory single
	last string
}

func (m *madeDirs) make(dir string) error {
	if dir == "." {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if dir == m.last {
		return nil
	}
	if err := m.root.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
		return noSpace(err)
	}
	m.last = dir
	return nil
}
