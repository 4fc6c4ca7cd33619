package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// webm makes a WebM file of VP8 key frames, perSecond of which are shown a second. Each
// second is a cluster, and has a cue, so that players seek to it.
//
// Source: RFC 8794 (EBML), RFC 9559 (Matroska) and the WebM container guidelines.
func webm(width, height, perSecond int, frames [][]byte) []byte {
	info := element(0x1549A966,
		element(0x2AD7B1, number(1_000_000)), // TimestampScale: milliseconds
		element(0x4489, float(float64(len(frames)*1000/perSecond))),
		element(0x4D80, []byte("p2pshare test")), element(0x5741, []byte("p2pshare test")))
	tracks := element(0x1654AE6B, element(0xAE,
		element(0xD7, number(1)), element(0x73C5, number(1)), element(0x83, number(1)), // number, UID, video
		element(0x86, []byte("V_VP8")),
		element(0xE0, element(0xB0, number(uint64(width))), element(0xBA, number(uint64(height))))))
	var clusters [][]byte
	for at := 0; at < len(frames); at += perSecond {
		parts := [][]byte{element(0xE7, number(uint64(at*1000/perSecond)))}
		for i := at; i < min(at+perSecond, len(frames)); i++ {
			head := []byte{0x81, 0, 0, 0x80} // of track 1, a key frame
			binary.BigEndian.PutUint16(head[1:], uint16((i-at)*1000/perSecond))
			parts = append(parts, element(0xA3, head, frames[i]))
		}
		clusters = append(clusters, element(0x1F43B675, parts...))
	}
	// Numbers are 8 bytes long, and so the cues as long with other positions in them.
	position := len(info) + len(tracks) + len(cues(clusters, 0))
	body := append([][]byte{info, tracks, cues(clusters, position)}, clusters...)
	head := element(0x1A45DFA3, element(0x4286, number(1)), element(0x42F7, number(1)), element(0x42F2, number(4)), element(0x42F3, number(8)),
		element(0x4282, []byte("webm")), element(0x4287, number(2)), element(0x4285, number(2)))
	return append(head, element(0x18538067, body...)...)
}

// cues tell where in the segment the cluster of each second begins.
func cues(clusters [][]byte, position int) []byte {
	var points [][]byte
	for second, c := range clusters {
		points = append(points, element(0xBB, element(0xB3, number(uint64(second*1000))),
			element(0xB7, element(0xF7, number(1)), element(0xF1, number(uint64(position))))))
		position += len(c)
	}
	return element(0x1C53BB6B, points...)
}

// element is an EBML element, with its size in 8 bytes.
func element(id uint32, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	head := bytes.TrimLeft(binary.BigEndian.AppendUint32(nil, id), "\x00")
	head = binary.BigEndian.AppendUint64(head, 1<<56|uint64(len(body)))
	return append(head, body...)
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func float(f float64) []byte { return number(math.Float64bits(f)) }

// vp8 is the key frame in a lossy WebP image (RFC 9649, section 2).
func vp8(webp []byte) ([]byte, error) {
	if len(webp) < 12 || string(webp[:4]) != "RIFF" || string(webp[8:12]) != "WEBP" {
		return nil, fmt.Errorf("no WebP image: %q", webp[:min(len(webp), 12)])
	}
	for rest := webp[12:]; len(rest) >= 8; {
		size := int(binary.LittleEndian.Uint32(rest[4:]))
		if size < 0 || size > len(rest)-8 {
			return nil, errors.New("a WebP image that was cut")
		}
		if string(rest[:4]) == "VP8 " {
			return rest[8 : 8+size], nil
		}
		rest = rest[min(len(rest), 8+size+size%2):]
	}
	return nil, errors.New("the WebP image is not lossy")
}
