// Command release builds the program for every system that a release is for, so that
// anyone who builds the same source with the same Go gets the same bytes:
//
//	go run ./cli/release -o DIR [-version v1.2.3] [-only linux/amd64,…] [-check]
//
// Beside the programs it writes SHA256SUMS and B3SUMS, which sha256sum -c and
// b3sum -c read. With -check each is built a second time, from a copy of the source in
// another place and with an empty cache, and must be the same.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/p2pshare/p2pshare/share/content"
)

// targets are what a release is for.
var targets = []string{"darwin/amd64", "darwin/arm64", "linux/amd64", "linux/arm64", "windows/amd64", "windows/arm64"}

const module = "github.com/p2pshare/p2pshare"

func main() {
	var r release
	only := flag.String("only", "", "build for these systems only, as linux/amd64,windows/arm64")
	flag.StringVar(&r.out, "o", "", "write into this `DIR`")
	flag.StringVar(&r.version, "version", "", "stamp this version; default: what git describe says")
	flag.BoolVar(&r.check, "check", false, "build each twice, and compare")
	flag.Parse()
	if err := r.run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

type release struct {
	root, out, version string
	check              bool
}

func (r *release) run(only string) error {
	chosen := targets
	if only != "" {
		chosen = strings.Split(only, ",")
		for _, t := range chosen {
			if !slices.Contains(targets, t) {
				return fmt.Errorf("no release is for %q: they are for %s", t, strings.Join(targets, ", "))
			}
		}
	}
	if r.out == "" || flag.NArg() > 0 {
		return errors.New("usage: go run ./cli/release -o DIR")
	}
	var err error
	if r.root, err = output("", "go", "list", "-m", "-f", "{{.Dir}}", module); err != nil {
		return err
	}
	if r.version == "" {
		if r.version, err = output(r.root, "git", "describe", "--tags", "--always", "--dirty"); err != nil {
			return fmt.Errorf("%w: name a -version", err)
		}
	}
	if strings.ContainsAny(r.version, " \t\n'\"/\\") {
		return fmt.Errorf("version %q: it becomes part of a file name, and of a flag", r.version)
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	var sha, b3 strings.Builder
	for _, t := range chosen {
		name, err := r.one(t)
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		data, err := os.ReadFile(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sha, "%x  %s\n", sha256.Sum256(data), name)
		fmt.Fprintf(&b3, "%s  %s\n", blake3(data).Hex(), name)
		fmt.Printf("%9d  %s\n", len(data), name)
	}
	return errors.Join(os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sha.String()), 0o644),
		os.WriteFile(filepath.Join(r.out, "B3SUMS"), []byte(b3.String()), 0o644))
}

// one builds for one system, and returns the file's name.
func (r *release) one(target string) (string, error) {
	system, arch, _ := strings.Cut(target, "/")
	name := fmt.Sprintf("p2pshare_%s_%s_%s", r.version, system, arch)
	if system == "windows" {
		name += ".exe"
	}
	path := filepath.Join(r.out, name)
	if err := r.build(r.root, path, system, arch); err != nil || !r.check {
		return name, err
	}
	elsewhere, err := os.MkdirTemp("", "p2pshare-release-")
	if err != nil {
		return name, err
	}
	defer os.RemoveAll(elsewhere)
	source, again := filepath.Join(elsewhere, "source"), filepath.Join(elsewhere, name)
	if err := copySource(source, r.root); err != nil {
		return name, err
	}
	if err := r.build(source, again, system, arch, "GOCACHE="+filepath.Join(elsewhere, "cache")); err != nil {
		return name, err
	}
	return name, same(path, again)
}

// build builds the source in dir. Nothing of this machine goes into the program: no
// path, no time, no C compiler, no flag that somebody has set for other builds.
func (r *release) build(dir, path, system, arch string, env ...string) error {
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X "+module+"/cli.stamped="+r.version, "-o", path, "./cli/p2pshare")
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0",
		"GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	c.Env = append(c.Env, env...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// copySource copies the module at root to dir, without its history.
func copySource(dir, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), data, 0o644)
	})
}

func same(a, b string) error {
	x, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	y, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	if blake3(x) != blake3(y) {
		return fmt.Errorf("built twice, it is %s and %s: something of this machine goes into it", blake3(x).Short(), blake3(y).Short())
	}
	return nil
}

// blake3 is what b3sum prints of data.
func blake3(data []byte) content.ID {
	o := content.NewOutboard(int64(len(data)))
	for i := range o.Groups() {
		at := i * content.GroupSize
		o.SetGroup(i, data[at:at+int64(content.GroupLen(int64(len(data)), i))])
	}
	return o.ID()
}

func output(dir string, args ...string) (string, error) {
	c := exec.Command(args[0], args[1:]...)
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
