package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// transfersName is the file in the home of the background transfers that are not
// over: a JSON array of recordedTransfer. It is written to a temporary file and
// renamed, without fsync: what a power cut loses is asked for again by hand.
const transfersName = "transfers.json"

// recordedMax bounds it: each request was at most bodyMax.
const recordedMax = backgroundMax * bodyMax

type recordedTransfer struct {
	ID      string     `json:"id"`
	Paused  bool       `json:"paused,omitempty"`
	Request GetRequest `json:"request"`
}

// recorded lists what is to be gone on with by the next peer of this home.
func (ts *transfers) recorded() []recordedTransfer {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	list := []recordedTransfer{}
	for _, t := range ts.list {
		if t.req.Detached && t.under() && !t.cut {
			list = append(list, recordedTransfer{ID: t.id, Paused: t.state == TransferPaused, Request: t.req})
		}
	}
	return list
}

// record writes the background transfers into the home of a peer that stays. That
// it can't is logged: they go on all the same.
func (s *Server) record() {
	if s.cfg.Service < ServiceServing {
		return
	}
	s.recording.Lock()
	defer s.recording.Unlock()
	line, err := json.Marshal(s.transfers.recorded())
	if err == nil {
		err = writeRecord(filepath.Join(s.cfg.Home, transfersName), line)
	}
	if err != nil {
		s.log.Warn("record background transfers", "err", err)
	}
}

func writeRecord(path string, data []byte) error {
	temp := path + ".tmp"
	err := os.WriteFile(temp, append(data, '\n'), 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

func readRecord(path string) (list []recordedTransfer, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, recordedMax))
	if err != nil {
		return nil, err
	}
	return list, json.Unmarshal(data, &list)
}

// goOn takes up the background transfers of an earlier run: those that were paused
// are paused still.
func (s *Server) goOn(ctx context.Context, g *errgroup.Group) {
	if s.cfg.Service < ServiceServing {
		return
	}
	list, err := readRecord(filepath.Join(s.cfg.Home, transfersName))
	if err != nil {
		s.log.Warn("read background transfers", "err", err)
	}
	for _, r := range list {
		t := &transfer{req: r.Request, id: r.ID, state: TransferRunning}
		if r.Paused {
			t.state = TransferPaused
		}
		what, options, err := s.parseGet(r.Request)
		if err == nil {
			t.what = what
			err = s.transfers.add(t)
		}
		if err != nil {
			s.log.Warn("background get is not gone on with", "err", OneLine(err.Error()))
			continue
		}
		g.Go(func() error { return s.background(ctx, t, options) })
	}
}
