package share

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

func TestVerifyFindsWhatTimesHide(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	data := randomBytes(2<<20, "verify")
	path := holder.write(t, "mine", data)
	mine := holder.add(t, path, AddOptions{})
	held := sharer.add(t, sharer.write(t, "held", randomBytes(1<<20, "held")), AddOptions{})
	holder.hold(t, held.ID, sharer.from(held))

	verify := func(what string) (found []Verified, err error) {
		t.Helper()
		err = holder.lib.Verify(t.Context(), what, VerifyOptions{Peers: []peer.AddrInfo{sharer.AddrInfo()}}, func(v Verified) error {
			found = append(found, v)
			return nil
		})
		return found, err
	}
	if found, err := verify(""); err != nil || len(found) != 2 || found[0].Damaged+found[1].Damaged != 0 || found[0].Read+found[1].Read != 3<<20 {
		t.Errorf("Verify = %+v, %v, want both, and nothing damaged", found, err)
	}
	// The disk flips a bit: the catalog's identity of the file is as before.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, flipped(data, 1<<20), 0o644), os.Chtimes(path, time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
	f, ok, err := holder.lib.catalog.byPath(path)
	if err != nil || !ok {
		t.Fatal(err)
	}
	record, _, err := holder.lib.catalog.file(f.key, path)
	if err != nil {
		t.Fatal(err)
	}
	if record.identity, err = identifyPath(path); err != nil {
		t.Fatal(err)
	}
	if err := holder.lib.catalog.updateFile(heldFile{fileRecord: record, path: path, share: f.key}); err != nil {
		t.Fatal(err)
	}
	holder.rot(t, held.ID, 300_000)
	if found, err := verify("mine"); err != nil || len(found) != 1 || found[0].Damaged != 1 || !errors.Is(found[0].Err, ErrModified) {
		t.Errorf("Verify of a file that the disk has changed = %+v, %v", found, err)
	}
	mustBe(t, path, flipped(data, 1<<20)) // it is left alone
	if _, err := sharer.get(t, mine.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo()}}); err == nil {
		t.Error("what was found to be damaged is sent")
	}
	if found, err := verify(held.ID.String()); err != nil || len(found) != 1 || found[0].Repaired != 1 || found[0].Err != nil || found[0].Path != "" {
		t.Errorf("Verify of a damaged copy = %+v, %v, want it repaired", found, err)
	}
	if _, err := verify("nothing"); !errors.Is(err, ErrNotShared) {
		t.Errorf("Verify of nothing = %v, want ErrNotShared", err)
	}
}

func TestCollect(t *testing.T) {
	holder, _ := startPeer(t, node.Config{})
	id := contentID([]byte("begun"))
	dir := holder.lib.store.newDir(id)
	stray := holder.lib.store.path(contentID([]byte("stray")))
	if err := errors.Join(
		holder.lib.catalog.putHold(id, holdRecord{stage: holdFetching, kind: KindFile}),
		os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "x"), make([]byte, 8192), 0o600), holder.lib.store.setUnfinished(id),
		os.MkdirAll(filepath.Dir(stray), 0o700), os.WriteFile(stray, make([]byte, 1000), 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := holder.lib.Collect(t.Context())
	if err != nil || c.Holds != 1 || c.Bytes < 9192 {
		t.Errorf("Collect = %+v, %v, want both gone", c, err)
	}
	if n := treeSize(t, holder.lib.store.dir); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	if c, err := holder.lib.Collect(t.Context()); err != nil || c != (Collected{}) {
		t.Errorf("Collect again = %+v, %v", c, err)
	}
}
