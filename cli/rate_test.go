package cli

import "testing"

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "20000": 20000, "512K": 512 << 10, "10M": 10 << 20, "1.5M": 3 << 19,
		"1.5MB": 1_500_000, "50MB/s": 50_000_000, "100 MiB": 100 << 20, "2g": 2 << 30, "0.1M": 104857,
	} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("parseRate(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"K", "-1M", "10X", "10MM", "NaN", "Inf", "1e30", "1M0", "10", "0x10M", "1KKB", "M10"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("parseRate(%q) = %d, want an error", text, got)
		}
	}
}
