package control

import (
	"bufio"
	"context"
	"errors"
	"io"
)

// lineReader reads the lines of an answer, of at most lineMax bytes, and the
// raw bytes between them.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns the next line, valid until the following call; io.EOF after the
// last one.
func (l *lineReader) next(ctx context.Context) ([]byte, error) {
	var long []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if err == nil && long == nil {
			return part, nil
		}
		long = append(long, part...)
		switch {
		case err == nil:
			return long, nil
		case err == bufio.ErrBufferFull && len(long) <= lineMax:
		case err == bufio.ErrBufferFull:
			return nil, errors.New("the running peer sent an endless line")
		case err == io.EOF && len(long) == 0:
			return nil, io.EOF
		default:
			return nil, goneUnlessDone(ctx, err)
		}
	}
}

// copyData writes the next n bytes to out. An error of out is returned as it
// is: it is the caller's own, as a full disk or a closed pipe.
func (l *lineReader) copyData(ctx context.Context, out io.Writer, n int64) error {
	if n < 0 || n > frameMax || out == nil {
		return errors.New("the running peer sent data that was not asked for")
	}
	frame := io.LimitedReader{R: l.r, N: n}
	w := &recordingWriter{w: out}
	if _, err := io.Copy(w, &frame); err != nil {
		if w.err != nil {
			return w.err
		}
		return goneUnlessDone(ctx, err)
	}
	if frame.N > 0 {
		return goneUnlessDone(ctx, io.ErrUnexpectedEOF)
	}
	return nil
}

// recordingWriter remembers an error of its writer, to tell it from one of the
// reader.
type recordingWriter struct {
	w   io.Writer
	err error
}

func (w *recordingWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
