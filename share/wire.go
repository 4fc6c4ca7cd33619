package share

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// # /p2pshare/meta/1: what is known
//
// JSON lines, each at most 96 KiB before its \n, over one stream; the opener asks, one
// request at a time, as often as it likes:
//
//	{"op":"name","key":"1220…"}   manifests whose name has this key (hex multihash)
//	{"op":"id","id":"b3:…"}       manifests of this content
//	{"op":"list","after":"5f0c…"} a page of all manifests, newest shares first
//	{"op":"haves","id":"b3:…"}    what of this content is held, and who else asks for it
//	{"op":"search","query":{…}}   manifests of shares whose names a query means
//
// and the other side answers each request with any number of manifest lines,
// 64 at most, each envelope of 16 KiB at most, and a last line:
//
//	{"manifest":{"sender":…,"content":…,"signature":…}}
//	{"end":true}                  or {"end":true,"error":"why"}
//
// The end of an answer to id may say what the content is, when the peer holds it for
// others and has no name for it:
//
//	{"end":true,"kind":"dir"}
//
// A list has the manifests of what the asker may see: of no share that is
// unlisted, to another peer, or for the LAN only when the asker is not reached
// over it; nor of one that can't be served now, nor any that has expired. The
// first request has no after. Its last line says more:
//
//	{"end":true,"total":123,"next":"5f0c…"}
//
// next is the after of the request for the page that follows. It has up to 64
// bytes that mean nothing to the asker. On the last page it is empty or left out.
// A page may have fewer than 64 manifests, or none, and a next all the same; but
// an asker may give up at the 64th that told it nothing new. What was shared
// since the first request is on no later page. total is how many shares the asker
// may see on all pages, counted without a look at the disk, and never less than
// this answer's manifests; left out it is 0. The most is 10,000, and means at
// least so many. An after that the peer does not know, or does not know any more,
// is answered with an error, and so are requests beyond what it cares to answer.
//
// Haves are answered with one line, for a content that is held as a whole, held
// in part by a peer that is getting it, or not held:
//
//	{"end":true,"size":1073741824,"all":true,"peers":[{"id":"12D3…","addrs":["/ip4/…"]}]}
//	{"end":true,"size":1073741824,"haves":[[0,12],[40,3]],"more":7001,"peers":[…]}
//	{"end":true,"error":"not held here"}
//
// haves are runs of chunk groups, [first, count], ascending, not touching, 2,048
// at most; a request with "first":7001 is answered with those from there on, and
// more is the first of the next request, left out when there is no further run. A
// getter that has nothing yet answers with neither all nor haves. peers, 16 at
// most with 4 addresses each, have asked the teller for this content within the
// last minute and are connected to it: getters that share what they have so find
// each other. An address is told only if the teller sees that peer at its IP
// address, and one that is loopback or private only over such a connection; an
// asker takes no other, and dials few of one teller's and one at an IP address, so
// that nobody is sent to a third party. Ask four times a second at most, and someone
// who holds all once a second.
//
// A query is
//
//	{"words":["report","2024"],"texts":["final report"],"not":["draft"],
//	 "not_texts":["old report"],"ext":["pdf"],"not_ext":["tmp"],"min":1048576,"max":9999999}
//
// All of it must hold of a share, and what is empty or 0 asks for nothing; but there
// is a word or an ext. Each list has 32 entries at most, all in lookup form. words are
// among the words of the name and not are none of them, as name.go splits it, with
// single letters of scripts written without spaces; texts occur in its lookup form as
// they stand, and not_texts do not; it ends in a dot and one of ext, and in none of
// not_ext; min and max are bytes. The answer has what the asker may see, as a list
// does, newest shares first; "partial":true in its last line tells that there is more.
//
// Unknown fields are ignored; an unknown op is answered with an error. Ops are
// append-only. A manifest is an envelope of kind "manifest" (manifest.go).
// The stream may run over a relayed connection.
//
// # /p2pshare/data/1: the bytes
//
// Binary frames over one long-lived stream, never over a relay. Integers are
// big-endian. A frame is
//
//	type(1) tag(4) length(4) payload(length)
//
// The opener sends requests, each under a tag of its choice that no unanswered
// request of this stream has, without waiting for answers; at most 256 may be
// unanswered, and the server stops reading beyond that. id is the 32 bytes of
// the content ID.
//
//	0x01 info      id(32)                                  how large is it?
//	0x02 outboard  id(32) level(1) first(8) count(4)       chaining values first … first+count-1
//	0x03 span      id(32) first(8) count(4)                chunk groups first … first+count-1
//	0x04 cancel    (empty)                                 stop answering this tag
//
// level 0 are the chaining values of chunk groups (256 KiB), level 1 those of
// 1 GiB subtrees, for contents over 64 GiB. count is 1 … 65,536 for outboard
// and 1 … 64 for span, and the range lies inside the content. The empty
// content has one group, of no bytes. The outboard of a content of one group is
// its ID; one of up to 1 GiB has no level 1.
//
// Each request but cancel is answered by any number of data frames and then
// one frame that ends it (size, last or error). Frames of different tags come
// in any order and may alternate; those of one tag have ascending indexes.
//
//	0x81 size      size(8)                                 ends an info
//	0x82 data      index(8) bytes                          more follow
//	0x83 last      index(8) bytes                          as data, and ends the request
//	0x84 error     code(1) text(UTF-8, ≤ 200)              ends the request
//
// In answers to span, bytes is exactly chunk group index. In answers to
// outboard it is the chaining values from index on, 32 bytes each, at most
// 8,192 of them. A cancelled request is ended by error 6, unless its last
// frame was on its way already; cancelling an unknown tag does nothing.
//
// Error codes: 1 not held here, 2 the file was modified since it was hashed,
// 3 refused, 4 busy: ask again later, 5 malformed request, 6 cancelled,
// 7 internal. A busy server refuses a request that it would answer too late, and
// the opener asks others, and it again after 3 to 8 seconds: it keeps the order of
// those who do for 10. They are append-only; an unknown one is treated as 7. After a
// malformed frame either side resets the stream.
//
// A receiver checks everything against the content ID. Chaining values that
// merge to the ID do not prove the size; the last chunk group does (package
// content): ask for it first.
const (
	metaProtocol protocol.ID = "/p2pshare/meta/1"
	dataProtocol protocol.ID = "/p2pshare/data/1"
)

// Limits of the meta protocol.
const (
	metaLineMax      = 96 << 10 // an envelope of 64 KiB in base64, and its wrapping
	metaManifestsMax = 64       // in one answer
	listTotalMax     = 10_000   // the highest total of a list: at least so many
	cursorMax        = 64       // bytes of a list's next
	havesMax         = 2048     // runs in one answer
	toldMax          = 16       // peers in one answer
	toldAddrsMax     = 4        // addresses of one of them
)

type metaRequest struct {
	Op    string `json:"op"`
	Key   string `json:"key,omitempty"`   // of opName
	ID    string `json:"id,omitempty"`    // of opID and opHaves
	After string `json:"after,omitempty"` // of opList: hostile
	First int64  `json:"first,omitempty"` // of opHaves: hostile
	Query *Query `json:"query,omitempty"` // of opSearch: hostile
}

const (
	opName   = "name"
	opID     = "id"
	opList   = "list"
	opHaves  = "haves"
	opSearch = "search"
)

type metaAnswer struct {
	Manifest json.RawMessage `json:"manifest,omitempty"`
	End      bool            `json:"end,omitempty"`
	Error    string          `json:"error,omitempty"`
	Total    int             `json:"total,omitempty"`   // at a list's end
	Next     string          `json:"next,omitempty"`    // at a list's end: hostile
	Kind     Kind            `json:"kind,omitempty"`    // at the end of opID's, of what is held without a name: hostile
	Partial  bool            `json:"partial,omitempty"` // at the end of what a search found: there is more

	// Of opHaves; all of it hostile.
	Size  int64      `json:"size,omitempty"`
	All   bool       `json:"all,omitempty"`
	Haves [][2]int64 `json:"haves,omitempty"`
	More  int64      `json:"more,omitempty"`
	Peers []toldPeer `json:"peers,omitempty"`
}

// toldPeer is one peer of an answer to opHaves.
type toldPeer struct {
	ID    string   `json:"id"`
	Addrs []string `json:"addrs"`
}

// readLine reads one line of at most metaLineMax bytes, its newline not counted
// and not returned. The line is valid until the next read. r is newLineReader's.
// io.EOF at the end of the stream.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > metaLineMax+1 {
		return nil, errLineTooLong
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

func newLineReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, metaLineMax+1) }

func decodeMetaRequest(line []byte) (metaRequest, error) {
	var q metaRequest
	err := node.DecodeStrict(line, &q)
	return q, err
}

func decodeMetaAnswer(line []byte) (metaAnswer, error) {
	var a metaAnswer
	err := node.DecodeStrict(line, &a)
	return a, err
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

type frameType byte

const (
	frameInfo     frameType = 0x01
	frameOutboard frameType = 0x02
	frameSpan     frameType = 0x03
	frameCancel   frameType = 0x04

	frameSize  frameType = 0x81
	frameData  frameType = 0x82
	frameLast  frameType = 0x83
	frameError frameType = 0x84
)

// Limits of the data protocol.
const (
	frameHeaderLen   = 9
	requestMax       = 32 + 1 + 8 + 4         // the largest request's payload
	answerMax        = 8 + content.GroupSize  // the largest answer's payload
	outboardCountMax = 1 << 16                // chaining values in one request
	spanCountMax     = 64                     // chunk groups in one request
	outboardPerFrame = content.GroupSize / 32 // chaining values in one frame
	requestsOpenMax  = 256                    // unanswered requests on one stream
	errorTextMax     = 200
)

type errorCode byte

const (
	codeNotHeld   errorCode = 1
	codeModified  errorCode = 2
	codeRefused   errorCode = 3
	codeBusy      errorCode = 4
	codeMalformed errorCode = 5
	codeCancelled errorCode = 6
	codeInternal  errorCode = 7
)

var (
	errMalformed   = errors.New("malformed frame")
	errLineTooLong = fmt.Errorf("line is longer than %d bytes", metaLineMax)
)

type frameHeader struct {
	kind   frameType
	tag    uint32
	length int
}

// readHeader reads a frame's header and refuses a payload longer than max.
func readHeader(r io.Reader, max int) (frameHeader, error) {
	var b [frameHeaderLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return frameHeader{}, err
	}
	n := binary.BigEndian.Uint32(b[5:])
	if n > uint32(max) {
		return frameHeader{}, fmt.Errorf("%w: payload of %d bytes, at most %d are allowed", errMalformed, n, max)
	}
	return frameHeader{kind: frameType(b[0]), tag: binary.BigEndian.Uint32(b[1:]), length: int(n)}, nil
}

// readFrame reads a frame whose payload fits into buf, and returns the payload
// in it.
func readFrame(r io.Reader, buf []byte) (h frameHeader, payload []byte, err error) {
	if h, err = readHeader(r, len(buf)); err != nil {
		return h, nil, err
	}
	payload = buf[:h.length]
	_, err = io.ReadFull(r, payload)
	return h, payload, err
}

func appendHeader(b []byte, kind frameType, tag uint32, length int) []byte {
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, tag)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// dataRequest is a request of the data protocol, but for its tag.
type dataRequest struct {
	kind  frameType
	id    content.ID
	level byte
	first int64
	count int64
}

func (q dataRequest) append(b []byte, tag uint32) []byte {
	length := map[frameType]int{frameInfo: 32, frameOutboard: 45, frameSpan: 44, frameCancel: 0}[q.kind]
	b = appendHeader(b, q.kind, tag, length)
	if q.kind == frameCancel {
		return b
	}
	b = append(b, q.id[:]...)
	if q.kind == frameInfo {
		return b
	}
	if q.kind == frameOutboard {
		b = append(b, q.level)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(q.first))
	return binary.BigEndian.AppendUint32(b, uint32(q.count))
}

// decodeRequest decodes and bounds a request's payload. Whether the range lies
// inside the content is for the server to check.
func decodeRequest(kind frameType, p []byte) (dataRequest, error) {
	q := dataRequest{kind: kind}
	want, countMax := 0, int64(0)
	switch kind {
	case frameInfo:
		want = 32
	case frameOutboard:
		want, countMax = 45, outboardCountMax
	case frameSpan:
		want, countMax = 44, spanCountMax
	case frameCancel:
	default:
		return q, fmt.Errorf("%w: unknown request type %#x", errMalformed, byte(kind))
	}
	if len(p) != want {
		return q, fmt.Errorf("%w: request %#x with a payload of %d bytes, not %d", errMalformed, byte(kind), len(p), want)
	}
	if want == 0 {
		return q, nil
	}
	copy(q.id[:], p)
	p = p[32:]
	if kind == frameInfo {
		return q, nil
	}
	if kind == frameOutboard {
		if q.level = p[0]; q.level > 1 {
			return q, fmt.Errorf("%w: outboard level %d", errMalformed, q.level)
		}
		p = p[1:]
	}
	first := binary.BigEndian.Uint64(p)
	q.count = int64(binary.BigEndian.Uint32(p[8:]))
	if q.count < 1 || q.count > countMax || first > content.SizeMax/content.GroupSize {
		return q, fmt.Errorf("%w: range of %d from %d", errMalformed, q.count, first)
	}
	q.first = int64(first)
	return q, nil
}

// dataAnswer is one answer frame. data points into the buffer it was decoded
// from.
type dataAnswer struct {
	kind  frameType
	size  int64  // of frameSize
	index int64  // of frameData, frameLast
	data  []byte // of frameData, frameLast
	code  errorCode
	text  string // of frameError: hostile
}

func decodeAnswer(kind frameType, p []byte) (dataAnswer, error) {
	a := dataAnswer{kind: kind}
	switch kind {
	case frameSize:
		if len(p) != 8 {
			return a, fmt.Errorf("%w: size of %d bytes", errMalformed, len(p))
		}
		size := binary.BigEndian.Uint64(p)
		if size > content.SizeMax {
			return a, fmt.Errorf("%w: content of %d bytes", errMalformed, size)
		}
		a.size = int64(size)
	case frameData, frameLast:
		if len(p) < 8 {
			return a, fmt.Errorf("%w: data without an index", errMalformed)
		}
		index := binary.BigEndian.Uint64(p)
		if index > content.SizeMax/content.GroupSize {
			return a, fmt.Errorf("%w: index %d", errMalformed, index)
		}
		a.index, a.data = int64(index), p[8:]
	case frameError:
		if len(p) < 1 || len(p) > 1+errorTextMax {
			return a, fmt.Errorf("%w: error of %d bytes", errMalformed, len(p))
		}
		a.code, a.text = errorCode(p[0]), string(p[1:])
	default:
		return a, fmt.Errorf("%w: unknown answer type %#x", errMalformed, byte(kind))
	}
	return a, nil
}
