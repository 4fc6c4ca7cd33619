package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

// HomeFormat is the version of the home directory that this program reads and
// writes. It grows when an older program would misread what a newer one wrote.
const HomeFormat = 1

const (
	formatFile = "format" // the version in decimal and a line feed
	lockFile   = "lock"   // locked while a Home is open; see writePID
)

// IsHome reports whether dir is a home directory, this peer's or another's: it
// has the files that every home has. What is in one is nobody else's business.
func IsHome(dir string) bool {
	for _, name := range []string{formatFile, identityFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// ErrHomeLocked is matched by *HomeLockedError.
var ErrHomeLocked = errors.New("home is in use")

// HomeLockedError says that another process has the home open. Ask that process,
// wait for it to end, or use another home.
type HomeLockedError struct {
	Dir string
	PID int // the process that has it, 0 if not known
}

func (e *HomeLockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("home %q is in use by %s: stop it first, or choose another home", e.Dir, who)
}

// Is makes errors.Is(err, ErrHomeLocked) true.
func (e *HomeLockedError) Is(target error) bool { return target == ErrHomeLocked }

// Home is the directory of one peer, open and locked: no other Home for it exists,
// in this process or another, until Close or the end of the process, however it
// ends. Its methods may be called from any goroutine.
type Home struct {
	dir  string
	lock *flock.Flock
}

// OpenHome opens dir as a home. One that does not exist, or holds nothing yet, is
// made one: the directory with mode 0700, then its format file. It does not wait
// for a lock.
//
// Errors: *HomeLockedError, matching ErrHomeLocked, if it is open elsewhere. The
// others say what the person can do: the home was written by a newer p2pshare; it
// is not a directory; it holds other files; it is not writable. A directory that
// is refused, other than for the lock, is left as it was.
func OpenHome(dir string) (*Home, error) {
	if dir == "" {
		return nil, errors.New("open home: no directory given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("home %q is not a directory: choose another home", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, homeError(dir, err)
	}
	if _, err := readFormat(dir); err != nil { // before the lock writes to it
		return nil, err
	}
	h := &Home{dir: dir, lock: flock.New(filepath.Join(dir, lockFile))}
	locked, err := h.lock.TryLock()
	if err != nil {
		return nil, homeError(dir, err)
	}
	if !locked {
		return nil, &HomeLockedError{Dir: dir, PID: readPID(h.lock.Path())}
	}
	if err := h.prepare(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// prepare does what needs the lock.
func (h *Home) prepare() error {
	if err := writePID(h.lock.Path(), strconv.Itoa(os.Getpid())); err != nil {
		return homeError(h.dir, err)
	}
	format, err := readFormat(h.dir) // again: another process may have been here
	if err != nil || format != 0 {
		return err
	}
	temp, err := writeTemp(h.dir, ".format-*.tmp", fmt.Appendf(nil, "%d\n", HomeFormat))
	if err != nil {
		return homeError(h.dir, err)
	}
	if err := os.Rename(temp, filepath.Join(h.dir, formatFile)); err != nil {
		os.Remove(temp)
		return homeError(h.dir, err)
	}
	return syncDir(h.dir)
}

// Dir returns the absolute path of the home.
func (h *Home) Dir() string { return h.dir }

// Close lets others open the home. It may be called twice.
//
// The lock file stays: if it were removed, a process that has just opened it
// would lock a file that the next one does not see.
func (h *Home) Close() error {
	if !h.lock.Locked() {
		return nil
	}
	writePID(h.lock.Path(), "") // only a courtesy
	return h.lock.Close()
}

// homeError wraps an error from the file system.
func homeError(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("home %q is not writable: change its owner or mode, or choose another home: %w", dir, err)
	}
	return fmt.Errorf("open home: %w", err)
}

// readFormat returns the format of the home in dir, 0 if it is to be made. The
// error says why it can't be used.
func readFormat(dir string) (int, error) {
	path := filepath.Join(dir, formatFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, checkNew(dir)
	}
	if err != nil {
		return 0, homeError(dir, err)
	}
	format, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || format < 1 {
		return 0, fmt.Errorf("%s does not hold a version number: restore it from a backup, or choose another home", path)
	}
	if format > HomeFormat {
		return 0, fmt.Errorf("home %q has format %d, this p2pshare knows up to %d: upgrade p2pshare", dir, format, HomeFormat)
	}
	return format, nil
}

// checkNew refuses a directory that is plainly in use for something else, as
// when a person gives their documents for a home. Allowed is what they or the
// system may put there before the first start, and what an earlier first start
// left when it was cut short.
func checkNew(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return homeError(dir, err)
	}
	for _, e := range entries {
		switch e.Name() {
		case lockFile, identityFile, identityFile + ".lock", "config.toml", "lost+found":
			continue
		}
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		return fmt.Errorf("%q is not a p2pshare home and holds other files, such as %q: choose an empty directory", dir, e.Name())
	}
	return nil
}

// pidWidth is the width of a process ID in the lock file.
const pidWidth = 10

// writePID puts pid into the lock file: a space, then pid padded to pidWidth, and
// a line feed. The place is fixed because on Windows the first byte is locked,
// even against us, and so can't be written, read or cut off.
func writePID(path, pid string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	line, from := fmt.Appendf(nil, " %-*s\n", pidWidth, pid), 0
	if runtime.GOOS == "windows" {
		from = 1
	}
	_, err = f.WriteAt(line[from:], int64(from))
	return errors.Join(err, f.Close())
}

// readPID returns the process ID in the lock file, 0 if there is none. The file
// may still hold that of a killed process for a moment, until the next one has
// written its own.
func readPID(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	field := make([]byte, pidWidth)
	if _, err := f.ReadAt(field, 1); err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(field)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// writeTemp writes data to a new file in dir, mode 0600, and syncs it. pattern is
// as for os.CreateTemp. The caller renames or removes it.
func writeTemp(dir, pattern string, data []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncDir makes the names in dir survive a crash, where the system can. Windows
// can't sync a directory, nor can some network file systems.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}
