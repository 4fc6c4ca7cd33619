package share

import (
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// TestMirrorKeepsToTheLimit has a mirror that sends all at once be read at a rate
// at which a chunk group takes longer than the mirror may take for it.
func TestMirrorKeepsToTheLimit(t *testing.T) {
	data := randomBytes(2*content.GroupSize, "mirror")
	id, _ := nameContent(t, data)
	s, _ := countedServer(t, honestMirror(data))
	m := openedMirror(t, s.URL, id)
	m.down = &limiter{}
	const rate = 512 << 10
	m.down.setRate(rate)
	m.stall = 200 * time.Millisecond
	begun := time.Now()
	err := m.span(t.Context(), id, int64(len(data)), content.Span{Count: 2}, func(int64, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if part := float64(len(data)) / time.Since(begun).Seconds() / rate; part > 1.15 {
		t.Errorf("it was read at %.2f of the limit", part)
	}
}
