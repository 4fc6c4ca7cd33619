package control

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// Paths of the API. Requests are JSON bodies (POST, DELETE) or query
// parameters (GET).
const (
	pathShares    = "/api/v1/shares"
	pathTransfers = "/api/v1/transfers"
	pathEntries   = "/api/v1/entries"
	pathPeers     = "/api/v1/peers"
	pathStatus    = "/api/v1/status"
	pathID        = "/api/v1/id"
	pathNeighbors = "/api/v1/neighbors"
	pathDoctor    = "/api/v1/doctor"
	pathGroups    = "/api/v1/groups"
	pathPins      = "/api/v1/pins"
	pathFind      = "/api/v1/find"
	pathNames     = "/api/v1/names"
	pathLimits    = "/api/v1/limits"
	pathVerify    = "/api/v1/verify"
	pathCollect   = "/api/v1/gc"
	pathServeLink = "/api/v1/serve-link"
	pathEvents    = "/api/v1/events"
	pathUploads   = "/api/v1/uploads"
	pathLink      = "/api/v1/link"
	pathQR        = "/api/v1/qr"
	pathSessions  = "/api/v1/sessions"
	pathLogin     = "/api/v1/login"
	pathLogout    = "/api/v1/logout"
	pathOpenAPI   = "/api/v1/openapi.json"
)

// Limits of the API.
const (
	headerMax = 64 << 10  // bytes of a request's header, about
	bodyMax   = 1 << 20   // bytes of a request's body
	lineMax   = 4 << 20   // bytes of one line of an answer: an error with many candidates
	frameMax  = 256 << 10 // bytes after one data line

	headerTimeout = 10 * time.Second // to read a request's header
	bodyTimeout   = 30 * time.Second // to read a request's body
	idleTimeout   = 2 * time.Minute  // of a connection between requests
	stopTimeout   = 5 * time.Second  // for open requests to end when the server stops

	backgroundMax = 64 // background transfers at once; a further one is refused
)

// contentTypeLines is the type of every stream of lines, contentTypeFrames of
// one that has raw bytes after its data lines.
const (
	contentTypeLines  = "application/x-ndjson"
	contentTypeFrames = "application/vnd.p2pshare.frames"
	contentTypeBytes  = "application/octet-stream" // of what is uploaded
)

// AddRequest is the body of POST /shares.
type AddRequest struct {
	Path    string      `json:"path"`              // absolute
	Name    string      `json:"name,omitempty"`    // empty: the path's base name
	Hidden  bool        `json:"hidden,omitempty"`  // share entries whose name begins with a dot
	Exclude []string    `json:"exclude,omitempty"` // glob patterns to leave out
	Scope   share.Scope `json:"scope,omitzero"`
	Mirrors []string    `json:"mirrors,omitempty"` // URLs of the raw file, as share.ParseMirror reads them
	Note    string      `json:"note,omitempty"`    // a line about it for people, as share.ParseNote reads it
	Watch   bool        `json:"watch,omitempty"`   // follow what becomes of the path, after a restart too
}

// RemoveRequest is the body of DELETE /shares.
type RemoveRequest struct {
	What string `json:"what"` // a name, ID, link or absolute path
}

// GetRequest is the body of POST /transfers.
type GetRequest struct {
	What     string   `json:"what"`
	Literal  bool     `json:"literal,omitempty"`   // What is a name, whatever it looks like
	Dir      string   `json:"dir,omitempty"`       // absolute: save in it, under the content's name
	Target   string   `json:"target,omitempty"`    // absolute: save as it; wins over Dir
	Stream   bool     `json:"stream,omitempty"`    // send the bytes as data frames instead of saving
	Force    bool     `json:"force,omitempty"`     // replace a different file
	SeedFrom []string `json:"seed_from,omitempty"` // absolute directories with what need not be fetched
	From     string   `json:"from,omitempty"`      // only manifests signed by this peer: an ID or a petname
	Path     string   `json:"path,omitempty"`      // what inside the directory
	Include  []string `json:"include,omitempty"`   // patterns of what inside the directory; empty: all
	Peers    []string `json:"peers,omitempty"`     // to ask first, as share.ParsePeer reads them
	Mirrors  []string `json:"mirrors,omitempty"`   // URLs of the raw file, wherever they are, as share.ParseMirror reads them
	Any      bool     `json:"any,omitempty"`       // strangers may answer when a group or publisher that should know can't
	Strict   bool     `json:"strict,omitempty"`    // refuse names that only strangers vouch for
	NoServe  bool     `json:"no_serve,omitempty"`  // don't go on serving what was got
	Detached bool     `json:"detached,omitempty"`  // go on when the request's connection closes

	AnyMirrors   bool       `json:"any_mirrors,omitempty"`   // ask the mirrors that strangers name, too
	AcceptChange bool       `json:"accept_change,omitempty"` // take what is said now of a name that was chosen before
	Pick         content.ID `json:"pick,omitzero"`           // of several contents, this one
	Explain      bool       `json:"explain,omitempty"`       // tell each source that was tried
	Timeout      float64    `json:"timeout_s,omitempty"`     // seconds; 0: none. The client that goes away in time learns no more
}

// EntriesRequest is the query of GET /entries: what, literal, peer (repeated).
type EntriesRequest struct {
	What    string
	Literal bool
	Peers   []string
}

// Event is one line of a stream: a JSON object whose field "event" tells which
// of the types below it is. The last line of a stream is *Added, *Removed,
// *Done, *Accepted or *Error; a stream that ends without one was cut off.
type Event interface{ event() string }

// Progress tells how far a long operation is.
type Progress struct {
	Phase   share.Phase            `json:"phase"`
	Done    int64                  `json:"done"`  // bytes; while searching: peers asked
	Total   int64                  `json:"total"` // bytes; 0 when not known
	Rate    int64                  `json:"rate"`  // bytes a second
	ETA     float64                `json:"eta_s"` // seconds; 0 when not known
	Sources int                    `json:"sources"`
	Peers   []share.SourceProgress `json:"peers,omitempty"` // what each gave, most bytes first
	Files   int64                  `json:"files,omitempty"` // of a directory: files done
	Name    string                 `json:"name,omitempty"`  // the file at hand: escape before showing
}

// Note is a line a person should see; it is escaped already.
type Note struct {
	Message string `json:"message"`
}

// Warning tells of something left out; it is escaped already.
type Warning struct {
	Message string `json:"message"`
}

// Added tells what a path is shared as.
type Added struct {
	Name      share.Name      `json:"name"`
	ID        content.ID      `json:"id"`
	Kind      share.Kind      `json:"kind"`
	Size      int64           `json:"size"`
	Files     int64           `json:"files"`
	Link      string          `json:"link"`
	Announced share.Announced `json:"announced"`
	Path      string          `json:"path"`
	Watched   bool            `json:"watched,omitempty"`
}

// Changed tells that a watched share was brought up to date with its files, or why it
// could not be.
type Changed struct {
	Name    share.Name `json:"name"`
	ID      content.ID `json:"id"`
	Was     content.ID `json:"was"` // its ID before
	Kind    share.Kind `json:"kind"`
	Size    int64      `json:"size"`
	Files   int64      `json:"files"`
	Path    string     `json:"path"`
	Hashed  int64      `json:"hashed"`            // bytes that were read
	Moved   int64      `json:"moved"`             // files that were only moved, and not read
	Problem string     `json:"problem,omitempty"` // why it stays as it was: escaped already
}

// Removed tells what is no longer shared. The file is still at Path.
type Removed struct {
	Name share.Name `json:"name"`
	ID   content.ID `json:"id"`
	Path string     `json:"path"`
}

// Data announces that Bytes raw bytes follow its line, at most 256 KiB. It
// occurs only in answers to a GetRequest with Stream.
type Data struct {
	Bytes int64 `json:"bytes"`
}

// Done tells what was got.
type Done struct {
	Name         share.Name         `json:"name"`
	ID           content.ID         `json:"id"`
	Kind         share.Kind         `json:"kind"`
	Path         string             `json:"path"` // absolute; "-" when streamed
	Size         int64              `json:"size"`
	Files        int64              `json:"files"`
	BytesFetched int64              `json:"bytes_fetched"`
	Seconds      float64            `json:"seconds"`
	Already      bool               `json:"already,omitempty"` // the same bytes were there before
	Sources      []share.SourceStat `json:"sources"`
	Corrupt      []peer.ID          `json:"corrupt,omitempty"` // peers dropped for wrong bytes

	CorruptMirrors []string `json:"corrupt_mirrors,omitempty"` // URLs of mirrors dropped for wrong answers
}

// Accepted tells that a detached transfer was begun.
type Accepted struct {
	ID   string `json:"id,omitempty"` // to pause, resume and cancel it by
	What string `json:"what"`
}

// TransferRequest is the body of POST /transfers/OP, where OP is pause, resume or
// cancel.
type TransferRequest struct {
	ID string `json:"id"`
}

// TransferChanged tells what became of a transfer.
type TransferChanged struct {
	ID    string        `json:"id"`
	State TransferState `json:"state"`
}

// LimitsRequest is the body of POST /limits. What is left out stays as it is.
type LimitsRequest struct {
	MaxUp    *int64 `json:"max_up,omitempty"` // bytes a second, share.LimitMin at least; 0: no limit
	MaxDown  *int64 `json:"max_down,omitempty"`
	CacheMax *int64 `json:"cache_max,omitempty"` // bytes, share.CacheMaxMin at least; 0: share.CacheMaxDefault
}

// Limits tells how fast bytes of contents may move, in bytes a second, 0: no limit; and
// how many bytes may be kept.
type Limits struct {
	MaxUp    int64 `json:"max_up"`
	MaxDown  int64 `json:"max_down"`
	CacheMax int64 `json:"cache_max"`
	StoreMax int64 `json:"store_max"` // as Kept has it: what the groups know, and POST /groups/set changes
}

// Kept is what is kept on the disk beside the user's files, in bytes, and its quotas.
type Kept struct {
	Store    int64 `json:"store"`     // copies for groups, finished or not
	StoreMax int64 `json:"store_max"` // what this peer offers to all its groups
	Cache    int64 `json:"cache"`     // what readers of the gateway and the drive have fetched
	CacheMax int64 `json:"cache_max"`
}

// Direction is where a transfer's bytes go.
type Direction string

const (
	DirectionDown Direction = "down" // a get of this peer
	DirectionUp   Direction = "up"   // what another peer gets from here
)

// TransferState is how a transfer stands.
type TransferState string

const (
	TransferRunning   TransferState = "running"
	TransferPaused    TransferState = "paused"
	TransferDone      TransferState = "done"   // of one in the background
	TransferFailed    TransferState = "failed" // of one in the background
	TransferCancelled TransferState = "cancelled"
)

// Transfer is one line of GET /transfers.
type Transfer struct {
	Direction Direction              `json:"direction"`
	ID        string                 `json:"id,omitempty"` // of a get
	Name      string                 `json:"name"`         // empty when not known: escape before showing
	Content   content.ID             `json:"content,omitzero"`
	Path      string                 `json:"path,omitempty"` // absolute; of a get that saves
	State     TransferState          `json:"state"`
	Phase     share.Phase            `json:"phase,omitempty"`
	Done      int64                  `json:"done"`  // bytes; of an upload: since the peer came
	Total     int64                  `json:"total"` // bytes; 0 when not known
	Rate      int64                  `json:"rate"`  // bytes a second, lately
	ETA       float64                `json:"eta_s"` // seconds; 0 when not known
	Sources   []share.SourceProgress `json:"sources,omitempty"`
	Peer      peer.ID                `json:"peer,omitempty"`    // of an upload
	Via       node.Via               `json:"via,omitempty"`     // of an upload
	Problem   string                 `json:"problem,omitempty"` // why it failed
	Error     *Error                 `json:"error,omitempty"`   // the same, with what to do, or to choose from
	What      string                 `json:"what,omitempty"`    // what was asked for, of a get
}

// Source is one source that a get tried; with GetRequest.Explain only.
type Source struct {
	Source string   `json:"source"` // "trust book", "group NAME", "record of PEER", "local network", "DHT", "this machine", "peer" or "mirror"
	Peer   peer.ID  `json:"peer,omitempty"`
	Found  string   `json:"found,omitempty"` // how it came to be asked: named, publisher, lan, dht or told
	Addr   string   `json:"addr,omitempty"`
	Via    node.Via `json:"via,omitempty"`   // how it was reached; left out: it was not
	Age    float64  `json:"age_s,omitempty"` // seconds since what it told was signed
	Bytes  int64    `json:"bytes"`           // of the content
	Count  int      `json:"count,omitempty"` // what it named: peers, or manifests
	Error  string   `json:"error,omitempty"`
}

// NamesRequest is the body of POST /names/OP, where OP is trust, untrust, forget,
// block or unblock.
type NamesRequest struct {
	Who     string `json:"who,omitempty"`     // a peer ID or petname: whom to trust or not to
	Petname string `json:"petname,omitempty"` // of trust: what to call it
	Name    string `json:"name,omitempty"`    // of trust: which name to take its word on; of forget: which name
	What    string `json:"what,omitempty"`    // of block and unblock: a peer ID, petname or content ID
}

// NamesChanged tells what became of the trust book.
type NamesChanged struct {
	Op string `json:"op"`
	TrustEntry
}

// TrustEntry is one line of GET /names: an entry of the trust book.
type TrustEntry struct {
	Kind    string        `json:"kind"` // "petname", "choice", "block", or "damaged" for a book that was put aside
	Petname share.Petname `json:"petname,omitempty"`
	Name    share.Name    `json:"name,omitempty"`
	Peer    peer.ID       `json:"peer,omitempty"`
	ID      content.ID    `json:"id,omitzero"`
	Tier    *int          `json:"tier,omitempty"`  // of a choice: in which it was made
	Among   int           `json:"among,omitempty"` // of a choice: how many publishers claimed that content then
	Mixed   string        `json:"mixed,omitempty"` // the scripts that the name mixes, so that it may look like another
	Like    string        `json:"like,omitempty"`  // an earlier entry's petname or name that this one looks like, and is not
	Path    string        `json:"path,omitempty"`  // of a damaged book
	Since   time.Time     `json:"since,omitzero"`
}

// Ready tells that a peer listens and answers the control API.
type Ready struct {
	PeerID peer.ID  `json:"peer_id"`
	Addrs  []string `json:"addrs"`         // full multiaddrs, with /p2p/ID
	API    string   `json:"api,omitempty"` // as http://127.0.0.1:4711, without the token

	Metrics string `json:"metrics,omitempty"` // the URL that needs no token, with --metrics
}

// Listed is one line of GET /shares and GET /entries.
type Listed struct {
	Name       string     `json:"name"` // of an entry: its base name
	ID         content.ID `json:"id"`   // zero for an empty directory
	Kind       share.Kind `json:"kind"`
	Size       int64      `json:"size"`
	Path       string     `json:"path"`  // of a share: absolute on disk; of an entry: inside the directory
	State      string     `json:"state"` // a share.State, or "remote"
	Files      int64      `json:"files,omitempty"`
	Executable bool       `json:"x,omitempty"`
	Added      time.Time  `json:"added,omitzero"`
	Mirrors    []string   `json:"mirrors,omitempty"` // of a share, as its manifest names them
	Note       string     `json:"note,omitempty"`    // of a share, as its manifest has it
	Watch      *Watch     `json:"watch,omitempty"`   // of a share that is watched
}

// Watch tells how a watched share is kept up to date.
type Watch struct {
	Running bool      `json:"running"`           // by this peer, now
	Events  bool      `json:"events"`            // the system tells of changes; else they are found by scanning
	Dirs    int       `json:"dirs"`              // directories whose changes are told
	Scanned time.Time `json:"scanned,omitzero"`  // when the last scan ended
	Every   float64   `json:"every_s"`           // between two scans at most
	Problem string    `json:"problem,omitempty"` // escaped already
}

// Conn is one line of GET /peers.
type Conn struct {
	Peer    peer.ID   `json:"peer"`
	Addr    string    `json:"addr"`
	Via     node.Via  `json:"via"`
	Inbound bool      `json:"inbound"`
	Agent   string    `json:"agent"` // as the peer told it: hostile text
	Streams int       `json:"streams"`
	Opened  time.Time `json:"opened"`
}

// ProbeRequest is the body of POST /neighbors/probe.
type ProbeRequest struct {
	Range string `json:"range"`           // a CIDR to say hello to, address by address
	Watch bool   `json:"watch,omitempty"` // tell each change, instead of what is
}

// Neighbor is one line of GET /neighbors; with watch it is an event, and has a
// State.
type Neighbor struct {
	State   NeighborState `json:"state,omitempty"`
	Peer    peer.ID       `json:"peer"`
	Name    string        `json:"name"`  // as it calls itself: hostile text
	Addrs   []string      `json:"addrs"` // full multiaddrs, with /p2p/ID
	Links   []string      `json:"links"` // the interfaces that it was heard on
	Shares  int           `json:"shares"`
	First   []Shared      `json:"first"`             // the newest of its shares, 20 at most
	Problem string        `json:"problem,omitempty"` // why it did not tell what it shares
	Seen    time.Time     `json:"seen"`
}

// NeighborState is what became of a neighbor.
type NeighborState string

const (
	NeighborJoined  NeighborState = "joined"
	NeighborChanged NeighborState = "changed"
	NeighborLeft    NeighborState = "left"
)

// Shared is one share of another peer.
type Shared struct {
	Name string     `json:"name"` // hostile text
	ID   content.ID `json:"id"`
	Kind share.Kind `json:"kind"`
	Size int64      `json:"size"`           // as its manifest says
	Note string     `json:"note,omitempty"` // of its publisher: hostile text
}

// Finding is one line of GET /doctor.
type Finding struct {
	Check   string       `json:"check"`   // what was looked at, as "lan"
	Subject string       `json:"subject"` // which of it, as "eth0 IPv4"
	State   FindingState `json:"state"`
	Message string       `json:"message"`
	Remedy  string       `json:"remedy,omitempty"` // what to do; empty when all is well
}

// FindingState says how bad a finding is.
type FindingState string

const (
	OK   FindingState = "ok"
	Warn FindingState = "warn" // it works, and less well than it could
	Fail FindingState = "fail"
)

func newProgress(p share.Progress) *Progress {
	return &Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Rate: p.Rate,
		ETA: seconds(p.ETA), Sources: p.Sources, Peers: p.Peers, Files: p.Files, Name: p.Name}
}

// NewChanged is what is told of c.
func NewChanged(c share.Change) *Changed {
	e := &Changed{Name: c.Share.Name, ID: c.Share.ID, Was: c.Was, Kind: c.Share.Kind, Size: c.Share.Size,
		Files: c.Share.Files, Path: c.Share.Path, Hashed: c.Hashed, Moved: c.Moved}
	if c.Err != nil {
		e.Problem = OneLine(c.Err.Error())
	}
	return e
}

func newDone(g share.Got) *Done {
	d := &Done{Name: g.Name, ID: g.ID, Kind: g.Kind, Path: g.Path, Size: g.Size, Files: g.Files,
		BytesFetched: g.BytesFetched, Seconds: seconds(g.Took), Already: g.Already,
		Sources: g.Sources, Corrupt: g.Corrupt, CorruptMirrors: g.CorruptMirrors}
	if d.Path == "" {
		d.Path = "-"
	}
	if d.Sources == nil {
		d.Sources = []share.SourceStat{}
	}
	return d
}

// seconds is d in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
