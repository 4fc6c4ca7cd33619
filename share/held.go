package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// held is an open file that was found to be the one that was hashed.
type held struct {
	file     *os.File
	record   heldFile
	identity fileIdentity // of the open file; of the store's the size only
	stored   *storedFile  // nil for a shared file
}

func (h *held) close() { h.file.Close() }

// unchanged reports whether the file is still as it was when it was opened:
// ask after reading, and before believing what was read.
func (h *held) unchanged() bool {
	if h.stored != nil {
		return h.stored.there()
	}
	info, err := h.file.Stat()
	return err == nil && sysIdentity(info) == h.identity
}

// openHeld opens a file of this library that holds id: of a share that allow
// lets through, or of the store. It returns ErrNotShared when there is none, and ErrModified
// when all there were have changed since they were hashed.
func (l *Library) openHeld(ctx context.Context, id content.ID, allow func(shareRecord) bool) (*held, error) {
	found, err := l.catalog.filesOf([]content.ID{id})
	if err != nil {
		return nil, err
	}
	return l.openLocated(ctx, id, found[id], allow)
}

// openLocated is openHeld for a content that was located just now.
func (l *Library) openLocated(ctx context.Context, id content.ID, found located, allow func(shareRecord) bool) (*held, error) {
	reason := ErrNotShared
	if l.book.blocked("", id) {
		return nil, fmt.Errorf("%s: %w", id, reason)
	}
	for i, f := range found.files {
		if !allow(found.shares[i]) {
			continue
		}
		h, err := l.openUnchanged(ctx, f)
		if err == nil {
			return h, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		reason = ErrModified
		l.log.Info("shared file is no longer what it was", "path", f.path, "id", id, "err", err)
		l.withdrawChanged(found.shares[i])
	}
	h, err := l.openStored(id)
	if errors.Is(err, ErrNotShared) {
		err = fmt.Errorf("%s: %w", id, reason)
	}
	return h, err
}

// openUnchanged opens f and makes sure of its content: by its identity when
// that is the recorded one, by hashing it again when only times or numbers
// differ (it was moved back, linked, or its mode changed), and by neither when
// its size says that it is another. What was found is recorded, so that no
// stranger can make this peer hash the same file again and again.
func (l *Library) openUnchanged(ctx context.Context, f heldFile) (*held, error) {
	file, info, err := openShared(func(flag int) (*os.File, error) { return os.OpenFile(f.path, flag, 0) })
	if err != nil {
		return nil, err
	}
	now := sysIdentity(info)
	if now == f.identity && !f.modified {
		return &held{file: file, record: f, identity: now}, nil
	}
	if now.size != f.identity.size || f.modified && now == f.identity {
		file.Close()
		return nil, ErrModified
	}
	if err := l.hashAgain(ctx, &f, file, now); err != nil {
		file.Close()
		return nil, err
	}
	return &held{file: file, record: f, identity: now}, nil
}

func (l *Library) hashAgain(ctx context.Context, f *heldFile, file *os.File, now fileIdentity) error {
	l.rehashing.Lock()
	defer l.rehashing.Unlock()
	// Somebody may have done it while we waited.
	if known, ok, err := l.catalog.file(f.share, f.path); err == nil && ok && known.identity == now {
		f.fileRecord = known
		if known.modified {
			return ErrModified
		}
		return nil
	}
	start := time.Now()
	id, _, err := hashContent(ctx, file, now.size, false, func(int) {})
	if err != nil {
		return err
	}
	f.modified = id != f.id
	f.identity = now
	if !f.modified {
		f.identity = now.settled(start)
	}
	if err := l.catalog.updateFile(*f); err != nil {
		return err
	}
	if f.modified {
		return ErrModified
	}
	return nil
}

// withdrawChanged stops announcing a share whose single file has changed.
func (l *Library) withdrawChanged(r shareRecord) {
	if r.Kind != KindFile {
		return // the rest of a tree is still good
	}
	k, err := l.keysOf(r)
	if err == nil {
		if _, stored, _ := l.catalog.stored(r.ID); stored {
			k.first = k.first[:1] // the content is here still
		}
		err = l.node.StopProviding(k.first...)
	}
	if err != nil {
		l.log.Warn("withdraw a changed file", "path", r.Path, "err", err)
	}
}

// anyShare allows every share: for what stays on this machine.
func anyShare(shareRecord) bool { return true }

// ownShares allows every share, or only those that everybody may have.
func ownShares(unscoped bool) func(shareRecord) bool {
	if !unscoped {
		return anyShare
	}
	return func(r shareRecord) bool { return r.Scope.To == "" && !r.Scope.LANOnly }
}

// readHeld reads chunk group index of h into buf. One of the store that is wrong is
// errDamaged.
func readHeld(h *held, size, index int64, buf *[content.GroupSize]byte) error {
	err := readGroup(h.file, size, index, buf)
	if h.stored != nil {
		n := content.GroupLen(size, index)
		if err != nil {
			n = 0 // what can't be read is damaged, whyever
		}
		return h.stored.check(index, buf[:n])
	}
	if errors.Is(err, ErrModified) || err == nil {
		return err
	}
	return fmt.Errorf("read %s: %w", h.record.path, err)
}
