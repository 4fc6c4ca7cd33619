package cli_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/p2pshare/p2pshare"

// arrows is the whole table of which package may import which, in the order of
// the layers: what stands below may import what stands above, and only that.
// A package that is not in it does not belong to the house yet: add a row.
const arrows = `
node/internal/lan      <-
node                   <- node/internal/lan
node/nodetest          <- node

share/content/internal/wide <-
share/content          <- share/content/internal/wide
share/internal/limit   <-
share/internal/swarm   <- share/content
share                  <- share/content share/internal/limit share/internal/swarm node

coord/internal/pinset  <- share/content
coord/internal/raftlog <-
coord                  <- coord/internal/pinset coord/internal/raftlog share share/content node

cli/control            <- coord share share/content node
cli/web                <-
cli                    <- cli/control cli/web coord share share/content node
cli/p2pshare           <- cli
cli/release            <- share/content
cli/e2e                <- cli cli/control coord share share/content node
`

// testHelpers may be imported by every test.
var testHelpers = []string{"node/nodetest"}

// houses says which packages alone may import a big module, by its path or the
// beginning of it: a folder, or files of one.
var houses = []struct{ imported, only string }{
	{"github.com/libp2p/go-libp2p-kad-dht", "node/dht.go node/lookup.go node/place.go node/provide.go node/value.go"},
	{"github.com/hashicorp/raft", "coord/internal/raftlog coord"},
	{"github.com/hashicorp/raft-wal", "coord/internal/raftlog"},
	{"lukechampine.com/blake3", "share/content"},
	{"github.com/spf13/cobra", "cli"},
	{"github.com/BurntSushi/toml", "cli/config.go"},
	{"net/http", "cli/control share/mirror.go share/mirrordial.go"},
}

// pure packages decide and do not act: they have no goroutine, clock, file,
// socket, lock or logger.
var pure = []string{"share/content", "share/internal/limit", "share/internal/swarm", "coord/internal/pinset"}

// impure is what a pure package may not import, and impureCalls what it may not
// use of a package it may import: time for durations and points, not the clock.
var (
	impure = []string{"bufio", "context", "io/fs", "io/ioutil", "log", "math/rand", "crypto/rand", "net", "os",
		"path/filepath", "plugin", "runtime", "sync", "syscall", "testing", "unsafe",
		"github.com/libp2p", "golang.org/x/sync", "golang.org/x/sys", module + "/node"}
	impureCalls = map[string][]string{
		"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		"fmt":  {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
	}
)

// seeded is what a pure package may use of math/rand/v2: numbers that follow from
// what it is given.
var seeded = []string{"Rand", "New", "NewPCG"}

// topLevel is all that the root of the repository may hold besides dot entries.
var topLevel = []string{"node", "share", "coord", "cli", "go.mod", "go.sum", "README.md", "LICENSE", "CHANGELOG.md"}

// source is one parsed Go file of the module.
type source struct {
	path string // from the root, with slashes
	pkg  string // its folder
	test bool
	file *ast.File
}

func (s source) imports() []string {
	var paths []string
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// parseModule parses every Go file itself. A child "go list" would be hidden
// from the test cache, which then repeats a pass after a forbidden import.
func parseModule(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..")
	var sources []source
	walkGo(t, root, func(name string, data []byte) {
		f, err := parser.ParseFile(token.NewFileSet(), name, data, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		sources = append(sources, source{path: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), file: f})
	})
	if len(sources) < 10 {
		t.Fatalf("found only %d Go files: the walk is broken", len(sources))
	}
	return sources
}

// walkGo calls fn for each Go file under root outside dot folders and testdata.
func walkGo(t *testing.T, root string, fn func(name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".go" || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		data, err := os.ReadFile(p)
		if err == nil {
			fn(filepath.ToSlash(rel), data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func parseArrows(t *testing.T) map[string][]string {
	t.Helper()
	table := map[string][]string{}
	var above []string
	for line := range strings.Lines(arrows) {
		pkg, imports, ok := strings.Cut(line, "<-")
		if !ok {
			continue
		}
		pkg = strings.TrimSpace(pkg)
		for _, to := range strings.Fields(imports) {
			if !slices.Contains(above, to) {
				t.Errorf("arrows: %s may import %s, which does not stand above it", pkg, to)
			}
		}
		above = append(above, pkg)
		table[pkg] = strings.Fields(imports)
	}
	return table
}

func TestImportsFollowTheArrows(t *testing.T) {
	table := parseArrows(t)
	for _, s := range parseModule(t) {
		allowed, known := table[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no row in arrows", s.path, s.pkg)
			continue
		}
		if s.test { // an external test imports its own package
			allowed = slices.Concat(allowed, testHelpers, []string{s.pkg})
		}
		for _, imported := range s.imports() {
			to, ours := strings.CutPrefix(imported, module+"/")
			if ours && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; %s may import %v", s.path, to, s.pkg, allowed)
			}
		}
	}
}

func TestBigModulesStayInTheirHouses(t *testing.T) {
	for _, s := range parseModule(t) {
		if s.test {
			continue
		}
		for _, imported := range s.imports() {
			for _, house := range houses {
				only := strings.Fields(house.only)
				if within(imported, house.imported) && !slices.Contains(only, s.path) && !slices.Contains(only, s.pkg) {
					t.Errorf("%s imports %s, which only %s may", s.path, imported, house.only)
				}
			}
		}
	}
}

func TestPurePackagesDoNotAct(t *testing.T) {
	for _, s := range parseModule(t) {
		if s.test || !slices.Contains(pure, s.pkg) {
			continue
		}
		for _, imported := range s.imports() {
			for _, denied := range impure {
				if within(imported, denied) && imported != "math/rand/v2" {
					t.Errorf("%s imports %s: a pure package does not act", s.path, imported)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine: a pure package does not act", s.path)
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if ok && (slices.Contains(impureCalls[pkg.Name], n.Sel.Name) || pkg.Name == "rand" && !slices.Contains(seeded, n.Sel.Name)) {
					t.Errorf("%s uses %s.%s: a pure package does not act", s.path, pkg.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestNoInitAndNoExit(t *testing.T) {
	for _, s := range parseModule(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s has an init function", s.path)
				}
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if ok && pkg.Name == "os" && n.Sel.Name == "Exit" && s.pkg != "cli/p2pshare" && s.pkg != "cli/release" {
					t.Errorf("%s uses os.Exit: return an error", s.path)
				}
			}
			return true
		})
	}
}

func TestTopLevelIsTheFourRooms(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s at the top level: it belongs in one of the rooms", e.Name())
		}
	}
}

// within reports whether an import path is prefix or lies below it.
func within(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}
