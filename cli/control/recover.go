package control

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
)

// GroupSurvey is the line of GET /groups/survey: what is left of a group.
type GroupSurvey struct {
	Group   string           `json:"group"`
	ID      string           `json:"id"`
	Epoch   uint64           `json:"epoch"`
	Leader  coord.Peer       `json:"leader"`
	Ahead   coord.Peer       `json:"ahead,omitempty"` // whose log goes further than this peer's
	Admin   bool             `json:"admin"`           // this peer needs no recovery key
	Age     float64          `json:"age_s"`           // since it heard from a leader; negative when it has not
	Split   string           `json:"split,omitempty"` // two recoveries began the epoch
	Members []coord.Standing `json:"members"`         // this peer first
}

func (s *Server) surveyGroup(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	g, err := pickGroup(c, r.URL.Query().Get("group"))
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	survey, err := c.Survey(r.Context(), g.ID())
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	line := &GroupSurvey{Group: g.Name(), ID: g.ID().String(), Epoch: survey.Epoch, Leader: survey.Leader(), Ahead: survey.Ahead(),
		Admin: survey.Admin, Age: survey.Age.Seconds(), Members: survey.Members}
	if survey.Split != nil {
		line.Split = OneLine(survey.Split.Error())
	}
	for i := range line.Members {
		line.Members[i].Problem = OneLine(line.Members[i].Problem)
	}
	newStream(w, r, contentTypeLines).sendLine(line)
}

// recoverOp does one of the ops for a group's worst day.
func recoverOp(ctx context.Context, c *coord.Coord, op string, req GroupRequest) (*GroupDone, error) {
	key, err := ParseRecoveryKey(req.Key)
	if err != nil {
		return nil, err
	}
	if op == "restore" {
		return restore(ctx, c, req, key)
	}
	g, err := pickGroup(c, req.Group)
	if err != nil {
		return nil, err
	}
	done := &GroupDone{Group: g.Name(), ID: g.ID().String()}
	if op == "backup" {
		done.Did = "saved"
		done.Backup, err = backUp(ctx, c, g, req)
		return done, err
	}
	done.Did = "recovered"
	o := coord.RecoverOptions{Key: key, Behind: req.Force}
	if req.Seen != nil {
		o.Seen = *req.Seen
	}
	done.Epoch, err = c.Recover(ctx, g.ID(), o)
	return done, err
}

// ParseRecoveryKey reads what group create prints; nil for "".
func ParseRecoveryKey(text string) (ed25519.PrivateKey, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	seed, err := hex.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, Errorf(CodeUsage, "that is no recovery key").WithHint("p2pshare group create prints one: 64 hex digits")
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// GroupBackup tells what is in a backup.
type GroupBackup struct {
	File    string     `json:"file"`
	Name    string     `json:"name"` // of the group, as its founder called it
	ID      string     `json:"id"`
	Epoch   uint64     `json:"epoch"`
	Index   uint64     `json:"index"` // log index
	At      string     `json:"at"`    // RFC 3339
	By      coord.Peer `json:"by"`    // who signed it
	Admin   bool       `json:"admin"` // who was an admin of the group then
	Names   int        `json:"names"`
	Pins    int        `json:"pins"`
	Members int        `json:"members"`
	Stale   bool       `json:"stale"` // without a quorum: there may have been more
}

// NewGroupBackup tells what is in the backup in a file.
func NewGroupBackup(file string, b coord.Backup) *GroupBackup {
	return &GroupBackup{File: file, Name: b.Name, ID: b.Group.String(), Epoch: b.Epoch, Index: b.Index,
		At: b.At.Format("2006-01-02T15:04:05Z07:00"), By: coord.Peer(b.By.String()), Admin: b.Admin,
		Names: b.Names, Pins: b.Pins, Members: b.Members, Stale: b.Stale}
}

// backUp writes a backup beside its file and renames it, so that there is a whole
// one or none.
func backUp(ctx context.Context, c *coord.Coord, g *coord.Group, req GroupRequest) (*GroupBackup, error) {
	if !filepath.IsAbs(req.File) {
		return nil, Errorf(CodeUsage, "%q is not an absolute path", share.Escape(req.File))
	}
	if _, err := os.Lstat(req.File); err == nil && !req.Force {
		return nil, Errorf(CodeRefused, "%s is there already", share.Escape(req.File)).WithHint("replace it with --force")
	}
	out, err := os.CreateTemp(filepath.Dir(req.File), "."+filepath.Base(req.File)+"-*.p2p-part") // 0600
	if err != nil {
		return nil, err
	}
	b, err := c.Backup(ctx, g.ID(), out)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), req.File)
	}
	if err != nil {
		os.Remove(out.Name())
		return nil, err
	}
	return NewGroupBackup(req.File, b), nil
}

func restore(ctx context.Context, c *coord.Coord, req GroupRequest, key ed25519.PrivateKey) (*GroupDone, error) {
	in, err := os.Open(req.File)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	g, err := c.Restore(ctx, in, req.Group, key)
	if err != nil {
		return nil, err
	}
	return &GroupDone{Did: "restored", Group: g.Name(), ID: g.ID().String(), Epoch: g.Epoch()}, nil
}
