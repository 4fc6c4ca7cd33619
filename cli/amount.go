package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// spanFlag is a duration of a flag that may be days or weeks, too.
type spanFlag time.Duration

func (d *spanFlag) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (*spanFlag) Type() string { return "duration" }

func (d *spanFlag) Set(text string) error {
	v, err := parseSpan(text)
	*d = spanFlag(v)
	return err
}

var errSpan = errors.New("not a duration like 90s, 12h, 30d or 2w")

// parseSpan reads a duration as time.ParseDuration does, and days and weeks before it:
// 1w2d12h. Days are of 24 hours.
func parseSpan(text string) (time.Duration, error) {
	rest := strings.TrimSpace(text)
	var total time.Duration
	for _, unit := range []struct {
		letter byte
		length time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}} {
		i := strings.IndexByte(rest, unit.letter)
		if i < 0 {
			continue
		}
		n, err := strconv.ParseFloat(rest[:i], 64)
		if err != nil || !(n >= 0) || n > float64(math.MaxInt64/2-total)/float64(unit.length) {
			return 0, errSpan
		}
		total += time.Duration(n * float64(unit.length))
		rest = rest[i+1:]
	}
	if rest == "" && total > 0 {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total {
		return 0, errSpan
	}
	return total + d, nil
}

// sizeFlag is a number of bytes of a flag.
type sizeFlag int64

func (n *sizeFlag) String() string {
	if *n == 0 {
		return ""
	}
	return size(int64(*n))
}

func (*sizeFlag) Type() string { return "size" }

func (n *sizeFlag) Set(text string) error {
	v, err := parseSize(text)
	*n = sizeFlag(v)
	return err
}

var errSize = errors.New("not a size like 500M, 20G or 1.5TB")

// parseSize reads a number of bytes; see rateUnits.
func parseSize(text string) (int64, error) {
	text = strings.TrimSpace(text)
	digits := strings.TrimRight(text, "KMGTiBkmgtb")
	unit, ok := rateUnits[strings.ToUpper(text[len(digits):])]
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(n > 0) || n*unit > math.MaxInt64/2 {
		return 0, errSize
	}
	return int64(n * unit), nil
}
