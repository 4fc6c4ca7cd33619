package cli

import (
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		text string
		want time.Duration
		bad  bool
	}{
		{"90s", 90 * time.Second, false},
		{"30d", 30 * day, false},
		{"2w", 14 * day, false},
		{"1w2d12h", 9*day + 12*time.Hour, false},
		{"1.5d", 36 * time.Hour, false},
		{"0", 0, false},
		{"0s", 0, false},
		{"", 0, true},
		{"d", 0, true},
		{"-1d", 0, true},
		{"-5s", 0, true},
		{"1d2w", 0, true},
		{"1d-1h", 0, true},
		{"99999999d", 0, true},
		{"NaNd", 0, true},
		{"Infd", 0, true},
		{"3 days", 0, true},
	} {
		got, err := parseSpan(c.text)
		if (err != nil) != c.bad || err == nil && got != c.want {
			t.Errorf("parseSpan(%q) = %v, %v, want %v, error %v", c.text, got, err, c.want, c.bad)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		bad  bool
	}{
		{"500M", 500 << 20, false},
		{"20G", 20 << 30, false},
		{"1.5TB", 15e11, false},
		{"4096", 4096, false},
		{"1 GiB", 1 << 30, false},
		{"0", 0, true},
		{"", 0, true},
		{"-1G", 0, true},
		{"NaN", 0, true},
		{"G", 0, true},
		{"1X", 0, true},
		{"99999999T", 0, true},
	} {
		got, err := parseSize(c.text)
		if (err != nil) != c.bad || err == nil && got != c.want {
			t.Errorf("parseSize(%q) = %d, %v, want %d, error %v", c.text, got, err, c.want, c.bad)
		}
	}
}
