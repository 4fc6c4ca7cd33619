package coord

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestManyAskAtOnce runs on the real clock, so that the race detector can watch
// it: it does not stand bubbles with many goroutines (golang/go#78156).
func TestManyAskAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s: learners have to be steady before they are promoted")
	}
	w := newWorld(t, 4)
	groups := w.found(3)
	id := groups[0].ID()
	w.join(3, AsWriter)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tasks, ctx := errgroup.WithContext(ctx)
	for i := range 16 {
		tasks.Go(func() error {
			cl := w.peers[i%4].Client(id)
			for n := range 10 {
				name := fmt.Sprintf("%d-%d", i, n)
				if _, err := cl.Pin(ctx, pinOf(name)); err != nil {
					return fmt.Errorf("pin %s: %w", name, err)
				}
				if _, _, err := cl.Resolve(ctx, "n"+name, ReadOptions{}); err != nil {
					return fmt.Errorf("read %s: %w", name, err)
				}
			}
			return nil
		})
	}
	if err := tasks.Wait(); err != nil {
		t.Fatal(err)
	}
	pins := 0
	for _, err := range w.peers[3].Client(id).Pins(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		pins++
	}
	if pins != 160 {
		t.Errorf("%d pins, want 160", pins)
	}
}
