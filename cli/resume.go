package cli

import "io"

// resumingWriter writes a stream that may begin again from its start: what it
// has written already is left out the next time. The caller answers for the
// bytes being the same.
type resumingWriter struct {
	w       io.Writer
	written int64 // to w, in all
	skip    int64 // bytes of this attempt that w has already
}

// restart begins another attempt.
func (r *resumingWriter) restart() { r.skip = r.written }

func (r *resumingWriter) Write(p []byte) (int, error) {
	skipped := int(min(r.skip, int64(len(p))))
	r.skip -= int64(skipped)
	if skipped == len(p) {
		return skipped, nil
	}
	n, err := r.w.Write(p[skipped:])
	r.written += int64(n)
	return skipped + n, err
}
