package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"golang.org/x/sync/errgroup"
)

// partial is a file on its way: .NAME.p2p-part beside its target, 0600 and
// locked while a get works on it. It becomes the target by rename.
//
// No record is kept of which chunk groups it holds: a get that goes on from it
// hashes what is there, at 0.13 s a GiB, and keeps what verifies. So a crash,
// a power cut or somebody's editor at any moment costs at most the groups that
// had not reached the disk.
type partial struct {
	root  *os.Root // the target's directory
	name  string   // of the target, in root; may hold '/'
	temp  string   // of the partial file, in root
	mode  fs.FileMode
	attrs fileAttrs // whose time it gets
	sync  bool      // fsync before the rename
	room  *holdRoom // of the store; nil: the disk's only

	meter *meter
	file  *os.File
	fresh bool // it held nothing when it was opened
	wrote atomic.Int64

	named chan error // once it is the target: gives when that is on the disk, and must be waited for

	writeback   sync.Mutex     // held by the one that starts it
	writingBack sync.WaitGroup // of that
	seeding     *seeding       // what else on this machine may hold it; nil: not to be looked for
}

const (
	partialPrefix = "."
	partialSuffix = ".p2p-part"
)

// nameMax is the longest name that common file systems hold, in bytes.
const nameMax = 255

// partialName is the partial file's name beside a target. Names that would
// grow too long are cut in the middle of what makes them different from
// nothing else in the directory but by chance, so their hash is put in.
func partialName(target string) string {
	dir, base := path.Split(target)
	if len(base) > nameMax-len(partialPrefix)-len(partialSuffix) {
		base = base[:nameMax-len(partialPrefix)-len(partialSuffix)-17]
		for len(base) > 0 && base[len(base)-1]&0xc0 == 0x80 || len(base) > 0 && base[len(base)-1] >= 0xc0 {
			base = base[:len(base)-1] // no half a character
		}
		base += "~" + content.Root([]byte(target)).Hex()[:16]
	}
	return dir + partialPrefix + base + partialSuffix
}

// holdsPartialName tells whether any component of a path is as a partial file's name:
// in a directory that is being got it would take the place of one.
func holdsPartialName(p string) bool {
	for name := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(name, partialPrefix) && strings.HasSuffix(name, partialSuffix) {
			return true
		}
	}
	return false
}

// openPartial opens or makes the partial file of name in root and locks it
// against other gets, waiting for them until ctx ends. The lock is on the file
// itself: when it was renamed to its target meanwhile, fs.ErrExist is returned.
// What is no regular file is not touched: ErrRefused.
func openPartial(ctx context.Context, root *os.Root, name string, m *meter) (*partial, error) {
	p := &partial{root: root, name: name, temp: partialName(name), mode: 0o666, sync: true, meter: m}
	for {
		if err := errors.Join(ctx.Err(), refuseOther(root, p.temp, fs.FileMode.IsRegular)); err != nil {
			return nil, err
		}
		f, err := root.OpenFile(p.temp, os.O_RDWR|os.O_CREATE|openNonblock, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lockFile(ctx, f); err != nil {
			f.Close()
			return nil, err
		}
		mine, err1 := f.Stat()
		there, err2 := root.Lstat(p.temp)
		if err := errors.Join(err1, err2); err == nil && os.SameFile(mine, there) {
			target, err := root.Lstat(name)
			if err != nil || !os.SameFile(mine, target) {
				p.file, p.fresh = f, mine.Size() == 0
				return p, nil
			}
			// A crash between link and remove left two names of one file. To
			// write into it would be to write into the target.
			err = root.Remove(p.temp)
			f.Close()
			if err != nil {
				return nil, err
			}
			continue
		}
		f.Close() // another get has finished it: begin again
		if _, err := root.Lstat(name); err == nil {
			return nil, fs.ErrExist
		}
	}
}

// refuseOther refuses what somebody has put where a partial file or directory
// should be: a link would lead elsewhere, and a FIFO never answer.
func refuseOther(root *os.Root, temp string, ours func(fs.FileMode) bool) error {
	info, err := root.Lstat(temp)
	if err != nil || ours(info.Mode()) {
		return nil // if it can't be looked at, opening it will say why
	}
	return fmt.Errorf("%s is %s, remove it: %w", Escape(temp), describeMode(info.Mode()), ErrRefused)
}

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 100 * time.Millisecond

func lockFile(ctx context.Context, f *os.File) error {
	for {
		ok, err := tryLock(f)
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admit implements sink. What is there already needs no room.
func (p *partial) admit(size int64) error {
	if p.room != nil {
		if err := p.room.admit(size); err != nil {
			return err
		}
	}
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	return checkSpace(p.file, size-info.Size())
}

// prepare implements sink: it finds what is there already, and makes room.
func (p *partial) prepare(size int64, o *content.Outboard) (*swarm.Bitfield, error) {
	if p.room != nil {
		if err := p.room.prepare(size); err != nil {
			return nil, err
		}
	}
	info, err := p.file.Stat()
	if err != nil {
		return nil, err
	}
	have := swarm.NewBitfield(content.GroupCount(size))
	if info.Size() > 0 && o != nil {
		p.meter.begin(PhaseVerifying, min(size, info.Size()))
		if have, err = p.verify(size, o); err != nil {
			return nil, err
		}
	}
	if p.seeding != nil && o != nil {
		p.meter.begin(PhaseVerifying, size)
		if err := p.seeding.fill(p, size, o, have); err != nil {
			return nil, err
		}
	}
	if err := checkSpace(p.file, size-have.Count()*content.GroupSize); err != nil {
		return nil, err
	}
	return have, p.file.Truncate(size)
}

// proof implements prover.
func (p *partial) proof(size int64, o *content.Outboard) ([]byte, error) {
	if p.seeding == nil {
		return nil, nil
	}
	return p.seeding.last(size, o)
}

// verify hashes what the partial file holds and returns the groups that are
// right. What lies wholly in a hole was never written, and is not read: if zeros
// are right there, they are fetched once more.
func (p *partial) verify(size int64, o *content.Outboard) (*swarm.Bitfield, error) {
	have := swarm.NewBitfield(o.Groups())
	written := swarm.NewBitfield(o.Groups())
	dataRuns(p.file, size, func(start, end int64) {
		for i := start / content.GroupSize; i*content.GroupSize < end; i++ {
			written.Set(i)
		}
	})
	var mu sync.Mutex // guards have
	var next atomic.Int64
	var g errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := groupBuffers.Get().(*[content.GroupSize]byte)
			defer groupBuffers.Put(buf)
			for i := next.Add(1) - 1; i < o.Groups(); i = next.Add(1) - 1 {
				n := content.GroupLen(size, i)
				p.meter.add(int64(n))
				if !written.Has(i) {
					continue
				}
				got, _ := p.file.ReadAt(buf[:n], i*content.GroupSize)
				if got == n && o.VerifyGroup(i, buf[:n]) == nil {
					mu.Lock()
					have.Set(i)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	return have, g.Wait()
}

// write implements sink.
func (p *partial) write(index int64, data []byte) error {
	if _, err := p.file.WriteAt(data, index*content.GroupSize); err != nil {
		return noSpace(err)
	}
	n := int64(len(data))
	if wrote := p.wrote.Add(n); wrote/writebackEvery > (wrote-n)/writebackEvery && p.writeback.TryLock() {
		p.writingBack.Go(func() {
			defer p.writeback.Unlock()
			startWriteback(p.file)
		})
	}
	return nil
}

// writebackEvery is after how many bytes the disk is set to work, which else would
// do nothing until the fsync at the end, and then have all of it to do.
const writebackEvery = 32 << 20

// finish makes the partial file the target, replacing what is there, or with
// replace false refusing with fs.ErrExist to: something may have come there
// while the content was on its way.
func (p *partial) finish(replace bool) error {
	if err := p.file.Chmod(p.mode &^ umask()); err != nil {
		return err
	}
	p.attrs.setTime(p.root, p.temp)
	if p.sync {
		if err := p.file.Sync(); err != nil {
			return noSpace(err)
		}
	}
	if err := p.move(replace); err != nil {
		return errors.Join(err, p.file.Chmod(0o600)) // it stays, and is nobody else's
	}
	if p.sync {
		p.named = make(chan error, 1)
		go func() { p.named <- syncRoot(p.root, path.Dir(p.name)) }() // waited for by whoever takes named
	}
	return nil
}

// move renames. A hard link is the portable rename that replaces nothing; file
// systems without links get the plain one.
func (p *partial) move(replace bool) error {
	if replace {
		return p.root.Rename(p.temp, p.name)
	}
	err := p.root.Link(p.temp, p.name)
	switch {
	case err == nil:
		return p.root.Remove(p.temp)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	if _, err := p.root.Lstat(p.name); err == nil {
		return fs.ErrExist
	}
	return p.root.Rename(p.temp, p.name)
}

func syncRoot(root *os.Root, dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// close leaves the partial file as it is, for the next get.
func (p *partial) close() {
	p.writingBack.Wait()
	p.file.Close()
}

// discard removes a partial file that is of no use.
func (p *partial) discard() {
	p.root.Remove(p.temp)
	p.close()
}
