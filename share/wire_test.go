package share

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// encodeAnswer is the other direction of decodeAnswer, for tests.
func encodeAnswer(a dataAnswer, tag uint32) []byte {
	var p []byte
	switch a.kind {
	case frameSize:
		p = binary.BigEndian.AppendUint64(p, uint64(a.size))
	case frameData, frameLast:
		p = append(binary.BigEndian.AppendUint64(p, uint64(a.index)), a.data...)
	case frameError:
		p = append(append(p, byte(a.code)), a.text...)
	}
	return append(appendHeader(nil, a.kind, tag, len(p)), p...)
}

var frameNames = map[frameType]string{
	frameInfo: "info", frameOutboard: "outboard", frameSpan: "span", frameCancel: "cancel",
	frameSize: "size", frameData: "data", frameLast: "last", frameError: "error",
}

// describeFrame says what a whole frame is, as testdata/wire.txt does.
func describeFrame(frame []byte) (string, error) {
	r := bytes.NewReader(frame)
	h, err := readHeader(r, answerMax)
	if err != nil {
		return "", err
	}
	p, _ := io.ReadAll(r)
	if len(p) != h.length {
		return "", fmt.Errorf("%d bytes of payload, and the header says %d", len(p), h.length)
	}
	fields := []string{frameNames[h.kind], fmt.Sprintf("tag=%d", h.tag)}
	add := func(format string, args ...any) { fields = append(fields, fmt.Sprintf(format, args...)) }
	if h.kind < 0x80 {
		q, err := decodeRequest(h.kind, p)
		if err != nil {
			return "", err
		}
		if q.kind != frameCancel {
			add("id=%s", q.id.Hex())
		}
		if q.kind == frameOutboard {
			add("level=%d", q.level)
		}
		if q.kind == frameOutboard || q.kind == frameSpan {
			add("first=%d", q.first)
			add("count=%d", q.count)
		}
		return strings.Join(fields, " "), nil
	}
	a, err := decodeAnswer(h.kind, p)
	if err != nil {
		return "", err
	}
	switch a.kind {
	case frameSize:
		add("size=%d", a.size)
	case frameData, frameLast:
		add("index=%d", a.index)
		add("bytes=%x", a.data)
	case frameError:
		add("code=%d", a.code)
		add("text=%s", a.text)
	}
	return strings.Join(fields, " "), nil
}

// encodeDescribed makes the frame that a line of testdata/wire.txt describes.
func encodeDescribed(t *testing.T, line string) []byte {
	t.Helper()
	line, text, _ := strings.Cut(line, " text=")
	words := strings.Fields(line)
	fields := map[string]string{"text": text}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		fields[k] = v
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(fields[name], 10, 64)
		if err != nil && fields[name] != "" {
			t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	raw := func(name string) []byte {
		b, err := hex.DecodeString(fields[name])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return b
	}
	tag := uint32(number("tag"))
	for kind, name := range frameNames {
		switch {
		case name != words[0]:
			continue
		case kind < 0x80:
			q := dataRequest{kind: kind, level: byte(number("level")), first: number("first"), count: number("count")}
			copy(q.id[:], raw("id"))
			return q.append(nil, tag)
		default:
			return encodeAnswer(dataAnswer{
				kind: kind, size: number("size"), index: number("index"), data: raw("bytes"),
				code: errorCode(number("code")), text: fields["text"],
			}, tag)
		}
	}
	t.Fatalf("%s: no such frame", line)
	return nil
}

func TestFrameVectors(t *testing.T) {
	const file = "testdata/wire.txt"
	id := content.Root([]byte("p2pshare"))
	groups := int64(content.SizeMax / content.GroupSize)
	var b strings.Builder
	b.WriteString(`# Frames of /p2pshare/data/1, each described on one line and written out in
# hexadecimal on the next: type(1) tag(4) length(4) payload, integers big-endian.
# In a description numbers are decimal, id and bytes hexadecimal, and text is the
# rest of the line.
`)
	add := func(frame []byte) {
		line, err := describeFrame(frame)
		if err != nil {
			t.Fatalf("%x: %v", frame, err)
		}
		fmt.Fprintf(&b, "\n%s\n%x\n", line, frame)
	}
	add(dataRequest{kind: frameInfo, id: id}.append(nil, 0))
	add(dataRequest{kind: frameInfo, id: id}.append(nil, 1<<32-1))
	add(dataRequest{kind: frameOutboard, id: id, level: 0, first: 0, count: 1}.append(nil, 1))
	add(dataRequest{kind: frameOutboard, id: id, level: 1, first: 4096, count: outboardCountMax}.append(nil, 258))
	add(dataRequest{kind: frameSpan, id: id, first: 0, count: 1}.append(nil, 3))
	add(dataRequest{kind: frameSpan, id: id, first: groups, count: spanCountMax}.append(nil, 4))
	add(dataRequest{kind: frameCancel}.append(nil, 4))
	add(encodeAnswer(dataAnswer{kind: frameSize, size: 0}, 0))
	add(encodeAnswer(dataAnswer{kind: frameSize, size: content.SizeMax}, 1))
	add(encodeAnswer(dataAnswer{kind: frameData, index: 7, data: []byte("a group's bytes")}, 3))
	add(encodeAnswer(dataAnswer{kind: frameLast, index: 8, data: []byte{0, 255}}, 3))
	add(encodeAnswer(dataAnswer{kind: frameLast, index: 0}, 3)) // the empty content's only group
	for code, text := range []string{"", "not held here", "modified since it was shared", "refused", "busy", "malformed", "cancelled", "can't be read"} {
		if code > 0 {
			add(encodeAnswer(dataAnswer{kind: frameError, code: errorCode(code), text: text}, uint32(code)))
		}
	}
	add(encodeAnswer(dataAnswer{kind: frameError, code: codeRefused}, 9))
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s made anew differs (-file +made):\n%s", file, diff)
	}

	// Now as a reader who has only the file.
	seen := map[string]bool{}
	described := ""
	for line := range strings.Lines(string(want)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case described == "":
			described = line
		default:
			frame, err := hex.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := describeFrame(frame); err != nil || got != described {
				t.Errorf("%s decodes to %q, %v, want %q", line, got, err, described)
			}
			if got := encodeDescribed(t, described); !bytes.Equal(got, frame) {
				t.Errorf("%s encodes to %x, want %s", described, got, line)
			}
			seen[strings.Fields(described)[0]] = true
			described = ""
		}
	}
	for _, name := range frameNames {
		if !seen[name] {
			t.Errorf("%s has no %s frame", file, name)
		}
	}
}

func TestDecodeRequestRefuses(t *testing.T) {
	id := content.Root(nil)
	ranged := func(first, count uint64) []byte {
		b := binary.BigEndian.AppendUint64(bytes.Clone(id[:]), first)
		return binary.BigEndian.AppendUint32(b, uint32(count))
	}
	leveled := func(level byte, first, count uint64) []byte {
		r := ranged(first, count)
		return append(append(bytes.Clone(r[:32]), level), r[32:]...)
	}
	groups := uint64(content.SizeMax / content.GroupSize)
	for _, tt := range []struct {
		what    string
		kind    frameType
		payload []byte
	}{
		{"type 0", 0, nil},
		{"type 5", 5, id[:]},
		{"an answer's type", frameData, append(make([]byte, 8), 1)},
		{"info without ID", frameInfo, nil},
		{"info with 31 bytes", frameInfo, id[:31]},
		{"info with 33 bytes", frameInfo, append(id[:], 0)},
		{"cancel with a payload", frameCancel, []byte{0}},
		{"span without range", frameSpan, id[:]},
		{"span with a level", frameSpan, leveled(0, 0, 1)},
		{"span of none", frameSpan, ranged(0, 0)},
		{"span of 65", frameSpan, ranged(0, spanCountMax+1)},
		{"span of 2^32-1", frameSpan, ranged(0, 1<<32-1)},
		{"span beyond any content", frameSpan, ranged(groups+1, 1)},
		{"span from 2^64-1", frameSpan, ranged(1<<64-1, 1)},
		{"span from 2^63", frameSpan, ranged(1<<63, 1)},
		{"outboard without level", frameOutboard, ranged(0, 1)},
		{"outboard of level 2", frameOutboard, leveled(2, 0, 1)},
		{"outboard of level 255", frameOutboard, leveled(255, 0, 1)},
		{"outboard of none", frameOutboard, leveled(0, 0, 0)},
		{"outboard of 65,537", frameOutboard, leveled(0, 0, outboardCountMax+1)},
		{"outboard beyond any content", frameOutboard, leveled(1, groups+1, 1)},
	} {
		if q, err := decodeRequest(tt.kind, tt.payload); !errors.Is(err, errMalformed) {
			t.Errorf("%s: decodeRequest = %+v, %v, want errMalformed", tt.what, q, err)
		}
	}
}

func TestDecodeAnswerRefuses(t *testing.T) {
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	groups := uint64(content.SizeMax / content.GroupSize)
	for _, tt := range []struct {
		what    string
		kind    frameType
		payload []byte
	}{
		{"type 0x80", 0x80, nil},
		{"type 0x85", 0x85, u64(0)},
		{"a request's type", frameInfo, make([]byte, 32)},
		{"size of 7 bytes", frameSize, make([]byte, 7)},
		{"size of 9 bytes", frameSize, make([]byte, 9)},
		{"size above the largest", frameSize, u64(content.SizeMax + 1)},
		{"negative size", frameSize, u64(1<<64 - 1)},
		{"data of 7 bytes", frameData, make([]byte, 7)},
		{"last of nothing", frameLast, nil},
		{"data beyond any content", frameData, u64(groups + 1)},
		{"negative index", frameLast, u64(1 << 63)},
		{"error without code", frameError, nil},
		{"error of 201 bytes", frameError, make([]byte, 2+errorTextMax)},
	} {
		if a, err := decodeAnswer(tt.kind, tt.payload); !errors.Is(err, errMalformed) {
			t.Errorf("%s: decodeAnswer = %+v, %v, want errMalformed", tt.what, a, err)
		}
	}
}

func TestReadHeaderBoundsTheLength(t *testing.T) {
	for _, tt := range []struct {
		header []byte
		max    int
		want   error
	}{
		{appendHeader(nil, frameSpan, 1, requestMax), requestMax, nil},
		{appendHeader(nil, frameSpan, 1, requestMax+1), requestMax, errMalformed},
		{appendHeader(nil, frameData, 1, answerMax), answerMax, nil},
		{appendHeader(nil, frameData, 1, answerMax+1), answerMax, errMalformed},
		{[]byte{1, 0, 0, 0, 0, 255, 255, 255, 255}, answerMax, errMalformed},
		{nil, requestMax, io.EOF},
		{appendHeader(nil, frameSpan, 1, 0)[:8], requestMax, io.ErrUnexpectedEOF},
	} {
		h, err := readHeader(iotest.OneByteReader(bytes.NewReader(tt.header)), tt.max)
		if !errors.Is(err, tt.want) {
			t.Errorf("readHeader(%x, %d) = %+v, %v, want error %v", tt.header, tt.max, h, err, tt.want)
		}
	}
}

func TestReadLineLimits(t *testing.T) {
	long := strings.Repeat("x", metaLineMax)
	for _, tt := range []struct {
		what, in string
		want     []string
		err      error // at the end; nil: any that is not io.EOF
	}{
		{"nothing", "", nil, io.EOF},
		{"one line", "a\n", []string{"a"}, io.EOF},
		{"empty lines", "\n\n", []string{"", ""}, io.EOF},
		{"carriage returns stay", "a\r\nb\n", []string{"a\r", "b"}, io.EOF},
		{"NUL stays", "a\x00b\n", []string{"a\x00b"}, io.EOF},
		{"cut short", "a\nb", []string{"a"}, io.ErrUnexpectedEOF},
		{"the longest", long + "\n" + long + "\nb\n", []string{long, long, "b"}, io.EOF},
		{"one byte more", "a\n" + long + "x\n", []string{"a"}, nil},
		{"endless", long + long + long, nil, nil},
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.HalfReader, iotest.DataErrReader} {
			r := newLineReader(wrap(strings.NewReader(tt.in)))
			var got []string
			var err error
			for {
				var line []byte
				if line, err = readLine(r); err != nil {
					break
				}
				got = append(got, string(line))
			}
			if !cmp.Equal(got, tt.want) {
				t.Errorf("%s: read %d lines, want %d", tt.what, len(got), len(tt.want))
			}
			if tt.err != nil && err != tt.err || tt.err == nil && errors.Is(err, io.EOF) {
				t.Errorf("%s: ended with %v, want %v", tt.what, err, tt.err)
			}
		}
	}
}

func TestReadLinePassesOnTheReadersError(t *testing.T) {
	r := newLineReader(io.MultiReader(strings.NewReader("half a li"), iotest.ErrReader(os.ErrDeadlineExceeded)))
	if line, err := readLine(r); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("readLine = %q, %v, want the deadline", line, err)
	}
}

func TestMetaLinesRefused(t *testing.T) {
	for _, line := range []string{
		``, `x`, `[]`, `"name"`, `null{}`, `{"op":"name","op":"id"}`, `{"OP":"name"}`, `{"op":1}`,
		`{"op":"name"}{}`, "{\"op\":\"\xff\"}", `{"op":"name","key":["1220"]}`, strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20),
	} {
		if q, err := decodeMetaRequest([]byte(line)); err == nil {
			t.Errorf("decodeMetaRequest(%q) = %+v, want an error", line, q)
		}
	}
	for _, line := range []string{``, `[]`, `{"end":1}`, `{"end":true,"END":false}`, `{"error":{}}`, `{"manifest":{"a":1,"a":2}}`} {
		if a, err := decodeMetaAnswer([]byte(line)); err == nil {
			t.Errorf("decodeMetaAnswer(%q) = %+v, want an error", line, a)
		}
	}
	if q, err := decodeMetaRequest([]byte(`{"op":"future","key":"k","more":[1,{"deep":null}]}`)); err != nil || q.Op != "future" {
		t.Errorf("a request with unknown fields = %+v, %v, want it read", q, err)
	}
}

func TestAskedRefuses(t *testing.T) {
	l := &Library{catalog: newCatalog(t)}
	for _, q := range []metaRequest{
		{}, {Op: "search"}, {Op: opName}, {Op: opName, Key: "zz"}, {Op: opName, Key: "1220"}, {Op: opName, Key: "1220" + strings.Repeat("00", 31)},
		{Op: opName, Key: "1e20" + strings.Repeat("00", 32)}, {Op: opName, Key: "1220" + strings.Repeat("00", 33)},
		{Op: opName, Key: "1114" + strings.Repeat("00", 20)}, {Op: opName, Key: "1210" + strings.Repeat("00", 16)},
		{Op: opID}, {Op: opID, ID: "b3:"}, {Op: opID, ID: "1220" + strings.Repeat("00", 32)},
	} {
		if r, err := l.asked(q); err == nil {
			t.Errorf("asked(%+v) = %v, want an error", q, r)
		}
	}
	if _, err := l.asked(metaRequest{Op: opName, Key: fmt.Sprintf("%x", []byte(Name("a").Key()))}); err != nil {
		t.Errorf("asked for a name nobody has: %v", err)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	id := content.Root(nil)
	for _, q := range []dataRequest{
		{kind: frameInfo, id: id}, {kind: frameCancel},
		{kind: frameOutboard, id: id, level: 1, first: 3, count: 9}, {kind: frameSpan, id: id, first: 1 << 40, count: 64},
	} {
		f.Add(q.append(nil, 77))
	}
	f.Add(append(dataRequest{kind: frameSpan, id: id, count: 1}.append(nil, 1), dataRequest{kind: frameCancel}.append(nil, 1)...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			start := len(stream) - r.Len()
			h, err := readHeader(r, requestMax)
			if err != nil {
				return
			}
			payload := make([]byte, h.length)
			if _, err := io.ReadFull(r, payload); err != nil {
				return
			}
			q, err := decodeRequest(h.kind, payload)
			if err != nil {
				if !errors.Is(err, errMalformed) {
					t.Fatalf("%x: %v, want errMalformed", payload, err)
				}
				return
			}
			frame := stream[start : len(stream)-r.Len()]
			if again := q.append(nil, h.tag); !bytes.Equal(again, frame) {
				t.Fatalf("%x was accepted, and encodes to %x", frame, again)
			}
			if q.first < 0 || q.count < 0 || q.count > outboardCountMax || q.first+q.count < q.first || q.level > 1 {
				t.Fatalf("%x was accepted as %+v", frame, q)
			}
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, a := range []dataAnswer{
		{kind: frameSize, size: 1 << 40}, {kind: frameData, index: 1, data: []byte("abc")},
		{kind: frameLast}, {kind: frameError, code: codeBusy, text: "busy"},
	} {
		f.Add(encodeAnswer(a, 3))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			start := len(stream) - r.Len()
			h, err := readHeader(r, answerMax)
			if err != nil || h.length > r.Len() {
				return
			}
			payload := make([]byte, h.length)
			io.ReadFull(r, payload)
			a, err := decodeAnswer(h.kind, payload)
			if err != nil {
				if !errors.Is(err, errMalformed) {
					t.Fatalf("%x: %v, want errMalformed", payload, err)
				}
				return
			}
			frame := stream[start : len(stream)-r.Len()]
			if again := encodeAnswer(a, h.tag); !bytes.Equal(again, frame) {
				t.Fatalf("%x was accepted, and encodes to %x", frame, again)
			}
			if a.size < 0 || a.size > content.SizeMax || a.index < 0 || len(a.data) > content.GroupSize || len(a.text) > errorTextMax {
				t.Fatalf("%x was accepted as %+v", frame, a)
			}
		}
	})
}

func FuzzMetaRequest(f *testing.F) {
	f.Add([]byte(`{"op":"name","key":"1220a14dbb3bbe30abc8ab5727ad13b8280687fa4f807f0604be239381da0ea830d8"}`))
	f.Add([]byte(`{"op":"id","id":"b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}`))
	f.Add([]byte(`{"op":"name","key":"1220","x":{"y":[1,2]}}` + "\n"))
	f.Add([]byte(`{"op":"id","id":"bafkr4iffpjt7zt3clpzfn3opyqqpsqk3hs2x7uymkz5s3yrzkffrxirdme"}`))
	f.Add([]byte(`{"op":"list"}`))
	f.Add([]byte(`{"op":"haves","id":"b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}`))
	f.Add([]byte(`{"op":"haves","id":"b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","first":-7}`))
	f.Add([]byte(`{"op":"list","after":"00000000000000000000000000000000"}`))
	f.Add([]byte(`{"op":"list","after":"` + strings.Repeat("f", metaLineMax) + `"}`))
	f.Add([]byte(`{"op":"search","query":{"words":["report"],"not":["draft"],"ext":["pdf"],"min":1,"max":2}}`))
	f.Add([]byte(`{"op":"search","query":{"words":[]}}`))
	f.Add([]byte(`{"op":"search","query":{"words":["` + strings.Repeat("a", queryBytesMax+1) + `"]}}`))
	f.Add([]byte(`{"op":"search","query":null}`))
	c, err := openCatalog(filepath.Join(f.TempDir(), "catalog.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.close() })
	l := &Library{catalog: c, book: emptyBook(f), lister: newLister(), searches: newTurns()}
	stranger := asker{keyID(f, testKey(f, 8)), node.ViaLAN}
	f.Add([]byte(`{"op":"list","after":"` + l.lister.cursors.format(7) + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		line, err := readLine(newLineReader(bytes.NewReader(append(data, '\n'))))
		if err != nil {
			return
		}
		q, err := decodeMetaRequest(line)
		if err != nil {
			return
		}
		encoded, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeMetaRequest(encoded); err != nil || !cmp.Equal(again, q, cmpopts.EquateEmpty()) {
			t.Fatalf("%q reads as %+v, and that again as %+v, %v", line, q, again, err)
		}
		if found, _ := l.asked(q); len(found) != 0 {
			t.Fatalf("an empty catalog answers %q with %v", line, found)
		}
		var out bytes.Buffer
		if err := l.answerMeta(t.Context(), &out, line, stranger); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("%q is answered %q, %v, want one line", line, out.Bytes(), err)
		}
	})
}

func FuzzMetaAnswer(f *testing.F) {
	f.Add([]byte(`{"end":true}`))
	f.Add([]byte(`{"end":true,"error":"unknown op"}`))
	e, err := testManifest(f).sign(testKey(f, 7))
	if err != nil {
		f.Fatal(err)
	}
	line, _ := json.Marshal(metaAnswer{Manifest: e.Encode()})
	f.Add(line)
	f.Add([]byte(`{"manifest":null,"end":false}`))
	f.Add([]byte(`{"end":true,"total":123,"next":"00112233445566778899aabbccddeeff"}`))
	f.Add([]byte(`{"end":true,"total":-1}`))
	f.Add([]byte(`{"end":true,"size":1073741824,"haves":[[0,12],[40,3]],"more":50,"peers":[{"id":"12D3","addrs":["/ip4/1.2.3.4/tcp/1"]}]}`))
	f.Add([]byte(`{"end":true,"size":-1,"all":true,"haves":[[1,2],[-1,-1]]}`))
	f.Add([]byte(`{"end":true,"total":1e9,"next":""}`))
	f.Add([]byte(`{"end":true,"total":10001,"next":"` + strings.Repeat("x", cursorMax+1) + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		line, err := readLine(newLineReader(bytes.NewReader(append(data, '\n'))))
		if err != nil {
			return
		}
		a, err := decodeMetaAnswer(line)
		if err != nil {
			return
		}
		if a.listFault(0) == "" && (a.Total < 0 || a.Total > listTotalMax || len(a.Next) > cursorMax) {
			t.Fatalf("%q is taken for the end of a list", line)
		}
		// No encoding again: a raw message keeps its spelling.
		e, err := node.DecodeEnvelope(a.Manifest)
		if err != nil {
			return
		}
		if m, err := OpenManifest(e, time.UnixMilli(1<<40)); err == nil && m.Publisher != e.Sender {
			t.Fatalf("%q opens as the manifest of %s", line, m.Publisher)
		}
	})
}

func TestWriteLineFitsReadLine(t *testing.T) {
	var b bytes.Buffer
	large := testManifest(t)
	large.Note = strings.Repeat("\x01", 7000) // six bytes each, in JSON
	e, err := large.sign(testKey(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(e.Encode()); n < 50<<10 {
		t.Fatalf("an envelope of %d bytes is none of the largest", n)
	}
	if err := writeLine(&b, metaAnswer{Manifest: e.Encode()}); err != nil {
		t.Fatal(err)
	}
	line, err := readLine(newLineReader(bufio.NewReader(&b)))
	if err != nil {
		t.Fatal(err)
	}
	a, err := decodeMetaAnswer(line)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := node.DecodeEnvelope(a.Manifest); err != nil || !cmp.Equal(back, e) {
		t.Errorf("the envelope came back as %+v, %v", back, err)
	}
}
