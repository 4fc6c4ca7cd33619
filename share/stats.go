package share

import (
	"sync/atomic"

	"go.etcd.io/bbolt"
)

// counts are what a library has done since it was opened.
type counts struct {
	done, failed atomic.Int64 // gets
	hashed       atomic.Int64 // bytes
}

// Stats are what a Library has done since it was opened, and what it has.
type Stats struct {
	Sent, Received int64 // bytes of data streams and mirrors: contents, and what frames them
	Hashed         int64 // bytes that were read to name what is shared
	Done, Failed   int64 // gets
	Lies, Liars    int64 // what did not verify, and peers that are not asked any more for it
	Uploads        int64 // peers that have a data stream open
	Shares         int64
	Watched        int64 // shares that are kept as they are on the disk, now
	Polled         int64 // of these: whose changes the system does not tell
}

// Stats tells what has been done. It counts the shares in the catalog,
// and reads no file.
func (l *Library) Stats() (Stats, error) {
	s := Stats{Sent: l.up.moved.Load(), Received: l.down.moved.Load(), Hashed: l.counts.hashed.Load(),
		Done: l.counts.done.Load(), Failed: l.counts.failed.Load()}
	l.liars.mu.Lock()
	s.Lies, s.Liars = l.liars.lies, int64(len(l.liars.byPeer))
	l.liars.mu.Unlock()
	l.uploads.mu.Lock()
	s.Uploads = int64(len(l.uploads.byPeer))
	l.uploads.mu.Unlock()
	l.watcher.mu.Lock()
	for _, r := range l.watcher.roots {
		s.Watched++
		if !r.events {
			s.Polled++
		}
	}
	l.watcher.mu.Unlock()
	err := l.catalog.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketPaths).Cursor()
		for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
			s.Shares++
		}
		return nil
	})
	return s, err
}
