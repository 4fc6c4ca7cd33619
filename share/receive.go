package share

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrTooLarge: more bytes came than are taken.
var ErrTooLarge = errors.New("too large")

// receiveNames is how many names a received file tries that is not the first of its
// name, and receiveStep after how many bytes the space on the disk is looked at again.
const (
	receiveNames = 100
	receiveStep  = 16 << 20
)

// Receive saves what in holds in the directory dir, under a name that a stranger chose:
// it is checked as every name is, changed where this system can't hold it, and numbered
// when it is taken; no file is replaced. The file is there whole or not at all. It
// returns the path and the size.
//
// Errors: ErrBadName, ErrTooLarge for more than max bytes, ErrNoSpace, ErrRefused for a
// home of p2pshare or when too many names are taken, and in's.
func (l *Library) Receive(dir, name string, in io.Reader, max int64) (saved string, size int64, err error) {
	n, err := ParseName(name)
	if err != nil {
		return "", 0, err
	}
	if holdsPartialName(string(n)) || strings.HasPrefix(string(n), ".") {
		return "", 0, fmt.Errorf("%s: a name that begins with a dot is not taken: %w", Escape(name), ErrBadName)
	}
	if inside, err := insideHome(dir, l.home.sameFile); err != nil || inside {
		return "", 0, errors.Join(err, fmt.Errorf("%s: nothing is saved in a home of p2pshare: %w", Escape(dir), ErrRefused))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", 0, err
	}
	defer root.Close()
	p, err := createReceived(root, l.system, n)
	if err != nil {
		return "", 0, err
	}
	if size, err = receiveBytes(p.file, in, max); err == nil {
		err = finishReceived(p, l.system, n)
	}
	if err != nil {
		p.discard()
		return "", 0, err
	}
	p.close()
	if p.named != nil {
		err = noSpace(<-p.named)
	}
	return filepath.Join(dir, p.name), size, err
}

// createReceived makes the partial file of a name, of which nobody else has one.
func createReceived(root *os.Root, sys localSystem, n Name) (*partial, error) {
	for i := range receiveNames {
		name := numbered(sys, n, i)
		p := &partial{root: root, name: name, temp: partialName(name), mode: 0o666, sync: true}
		f, err := root.OpenFile(p.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		p.file = f
		return p, noSpace(err)
	}
	return nil, fmt.Errorf("%s: too many files of this name are on their way: %w", Escape(string(n)), ErrRefused)
}

func receiveBytes(f *os.File, in io.Reader, max int64) (size int64, err error) {
	in = io.LimitReader(in, max+1)
	for {
		if err := checkSpace(f, receiveStep); err != nil {
			return size, err
		}
		n, err := io.CopyN(f, in, receiveStep)
		if size += n; size > max {
			return size, fmt.Errorf("it has more than %d bytes: %w", max, ErrTooLarge)
		}
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, noSpace(err)
		}
	}
}

// finishReceived gives a file the first of its names that is free.
func finishReceived(p *partial, sys localSystem, n Name) error {
	for i := range receiveNames {
		p.name = numbered(sys, n, i)
		if err := p.finish(false); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fmt.Errorf("%s: %d files have this name: %w", Escape(string(n)), receiveNames, ErrRefused)
}

// numbered is n as sys can hold it, with a number when i is not 0.
func numbered(sys localSystem, n Name, i int) string {
	if i > 0 {
		ext := path.Ext(string(n))
		base := strings.TrimSuffix(string(n), ext)
		if len(n) > nameMax-8 {
			base = strings.ToValidUTF8(base[:max(0, min(len(base), nameMax-8-len(ext)))], "")
		}
		n = Name(base + " (" + strconv.Itoa(i) + ")" + ext)
	}
	local, _ := sys.name(n)
	return local
}
