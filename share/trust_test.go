package share

import (
	"encoding/json"
	"log/slog"
	"testing"
)

// emptyBook is a trust book in a home of its own.
func emptyBook(t testing.TB) *book {
	t.Helper()
	b, err := openBook(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
