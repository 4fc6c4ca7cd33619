package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share"
)

// Limits of what is uploaded.
const (
	uploadsMax  = 8           // at once
	uploadStall = time.Minute // without a byte
	uploadSpare = 64 << 20    // bytes that an upload leaves free
	batchesMax  = 64          // that are remembered
	batchMax    = 64          // bytes of a batch's name
	sameNameMax = 1000        // files of one name in the folder, as "a (2).txt"
)

// Uploaded tells where the bytes of an upload are. Nothing is shared by it.
type Uploaded struct {
	Path string `json:"path"` // absolute, of the file
	Root string `json:"root"` // absolute: what to share; of a file in a directory, the directory
	Size int64  `json:"size"`
}

// batches are the directories that are being uploaded, file by file. Its methods are
// safe for concurrent use.
type batches struct {
	mu   sync.Mutex
	list []batch // guarded by mu, oldest first; a further one takes the place of the oldest
}

type batch struct{ name, dir, root string }

// upload answers POST /uploads, whose body is a file that a page was given: a browser
// tells its bytes, and not where it is, so it can't be shared in place. It becomes a file
// in the folder; one of that name which is there is left alone, and the new one is called
// "talk (2).mp4".
//
//	name=talk.mp4               one file
//	path=trip/day1/a.jpg        a file of a directory, all of whose files name
//	batch=9f3c…                 the same batch
//
// Each component is checked as names from the network are, and os.Root keeps
// the whole inside the folder, whatever links lie there.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	select {
	case s.uploading <- struct{}{}:
		defer func() { <-s.uploading }()
	default:
		writeError(w, Errorf(CodeRefused, "%d uploads are under way already", uploadsMax).WithHint("wait for one of them to end"))
		return
	}
	done, err := s.takeUpload(w, r)
	if err != nil {
		w.Header().Set("Connection", "close") // the rest of the body is not read
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(done)
}

func (s *Server) takeUpload(w http.ResponseWriter, r *http.Request) (*Uploaded, error) {
	if s.cfg.Folder == "" {
		return nil, Errorf(CodeRefused, "there is no folder for what is uploaded").WithHint("name one: folder in config.toml, or --folder DIR")
	}
	if r.ContentLength < 0 {
		return nil, Errorf(CodeUsage, "the header Content-Length is needed")
	}
	if err := s.makeFolder(s.cfg.Folder); err != nil {
		return nil, err
	}
	if free := share.FreeSpace(s.cfg.Folder); free >= 0 && r.ContentLength > free-uploadSpare {
		return nil, Errorf(CodeNoSpace, "%d bytes are to come, and %d are free in %s", r.ContentLength, free, share.Escape(s.cfg.Folder))
	}
	root, err := os.OpenRoot(s.cfg.Folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name, top, err := s.uploadName(root, r)
	if err != nil {
		return nil, err
	}
	final, err := writeUpload(root, name, &patientBody{r.Body, http.NewResponseController(w)}, r.ContentLength)
	if err != nil {
		return nil, err
	}
	done := &Uploaded{Path: filepath.Join(s.cfg.Folder, filepath.FromSlash(final)), Size: r.ContentLength}
	done.Root = done.Path
	if top != "" {
		done.Root = filepath.Join(s.cfg.Folder, top)
	}
	return done, nil
}

// makeFolder makes dir if it is the folder of this peer: any other that a request names
// has to be there.
func (s *Server) makeFolder(dir string) error {
	if dir == "" || filepath.Clean(dir) != filepath.Clean(s.cfg.Folder) {
		return nil
	}
	return os.MkdirAll(s.cfg.Folder, 0o755)
}

// uploadName is the path in the folder that a request names, and the directory of
// its batch there.
func (s *Server) uploadName(root *os.Root, r *http.Request) (name, top string, err error) {
	query := r.URL.Query()
	if n := query.Get("name"); n != "" {
		checked, err := share.ParseName(n)
		return string(checked), "", err
	}
	p, err := share.ParsePath(query.Get("path"))
	if err != nil {
		return "", "", err
	}
	dir, rest, ok := strings.Cut(string(p), "/")
	id := query.Get("batch")
	if !ok || id == "" || len(id) > batchMax {
		return "", "", Errorf(CodeUsage, "a name, or a path inside a directory and a batch, are needed")
	}
	if top, err = s.batches.dir(root, id, dir); err != nil {
		return "", "", err
	}
	name = path.Join(top, rest)
	return name, top, root.MkdirAll(filepath.FromSlash(path.Dir(name)), 0o755)
}

// dir returns the directory of a batch, which it makes for its first file.
func (b *batches) dir(root *os.Root, id, name string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, known := range b.list {
		if known.name == id && known.dir == name {
			return known.root, nil
		}
	}
	made, err := firstFree(name, func(name string) error { return root.Mkdir(name, 0o755) })
	if err != nil {
		return "", err
	}
	b.list = append(b.list, batch{id, name, made})
	b.list = b.list[max(0, len(b.list)-batchesMax):]
	return made, nil
}

// firstFree tries name, then "name (2)", and so on, until one is not there yet.
func firstFree(name string, try func(string) error) (string, error) {
	dir, base := path.Split(name)
	ext := path.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	if stem == "" { // a name as .profile
		stem, ext = base, ""
	}
	for i := 1; i <= sameNameMax; i++ {
		next := name
		if i > 1 {
			next = fmt.Sprintf("%s%s (%d)%s", dir, stem, i, ext)
		}
		if err := try(next); !errors.Is(err, fs.ErrExist) {
			return next, err
		}
	}
	return "", Errorf(CodeRefused, "%d files of the name %q are there", sameNameMax, share.Escape(base))
}

// writeUpload writes size bytes into a new file. Its name is taken first, with no bytes,
// and what comes is written beside it and renamed: what a crash leaves is
// an empty file, and a part of the bytes in one whose name begins with a dot.
func writeUpload(root *os.Root, name string, from io.Reader, size int64) (final string, err error) {
	create := func(name string) error {
		f, err := root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	if final, err = firstFree(name, create); err != nil {
		return "", err
	}
	temp, err := firstFree(path.Join(path.Dir(name), ".p2pshare-upload"), create)
	if err != nil {
		return "", errors.Join(err, root.Remove(filepath.FromSlash(final)))
	}
	temp, file := filepath.FromSlash(temp), filepath.FromSlash(final)
	err = copyUpload(root, temp, from, size)
	if err == nil {
		err = root.Rename(temp, file)
	}
	if err != nil {
		root.Remove(temp)
		root.Remove(file)
	}
	return final, err
}

func copyUpload(root *os.Root, temp string, from io.Reader, size int64) error {
	f, err := root.OpenFile(temp, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, from)
	if err == nil && n != size {
		err = Errorf(CodeFailed, "%d bytes came of %d", n, size)
	}
	return errors.Join(err, f.Close())
}

// patientBody reads a body for as long as it goes on coming, past the deadline that
// boundBodies sets.
type patientBody struct {
	io.Reader
	control *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(uploadStall))
	return b.Reader.Read(p)
}
