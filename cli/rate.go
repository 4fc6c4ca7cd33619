package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/p2pshare/p2pshare/share"
)

// rateUnits are what a number of bytes may end in, in capitals: as output shows
// sizes, a bare K is 1,024 bytes.
var rateUnits = map[string]float64{
	"": 1, "B": 1,
	"K": 1 << 10, "KIB": 1 << 10, "KB": 1e3,
	"M": 1 << 20, "MIB": 1 << 20, "MB": 1e6,
	"G": 1 << 30, "GIB": 1 << 30, "GB": 1e9,
	"T": 1 << 40, "TIB": 1 << 40, "TB": 1e12,
}

var errRate = errors.New("not a rate like 10M, 512K or 1.5MB, in bytes a second; 0 is no limit")

// parseRate reads a number of bytes a second; none and 0 are no limit.
func parseRate(text string) (int64, error) {
	text = strings.TrimSuffix(strings.TrimSpace(text), "/s")
	digits := strings.TrimRight(text, "KMGTiBkmgtb")
	unit, ok := rateUnits[strings.ToUpper(text[len(digits):])]
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(n >= 0) || n*unit > math.MaxInt64/2 {
		return 0, errRate
	}
	rate := int64(n * unit)
	if n > 0 && rate < share.LimitMin {
		return 0, errors.New("less than 16K, the least that a transfer goes on with")
	}
	return rate, nil
}

func (s *settings) parseRate(key string) (int64, error) {
	text := s.values[key].text()
	rate, err := parseRate(text)
	if err != nil {
		return 0, s.bad(key, text, err)
	}
	return rate, nil
}
