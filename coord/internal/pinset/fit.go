package pinset

import "math/bits"

// A content's members are met in the order in which their clocks ring: each is
// exponentially distributed with the member's rate. So the first is a member with
// a probability in proportion to its rate, and a copy moves between two members
// only as their rates change by different factors.
//
// For more than one copy rates in proportion to capacities would be unfair to the
// greater members, which ring once and are out. fit finds the rates for which each
// has its share.

// drawn is a class as it is within one level: so many of its members are met first.
type drawn struct {
	copies int
	weight uint64 // fraction of all contents
}

const (
	fitSteps    = 128 // of time: the integral is right to about 1/fitSteps²
	fitRounds   = 40
	fitEnough   = one >> 13 // relative error at which a fit ends
	weightLeast = 16        // of rates, of which the greatest is one: below, ratios are coarse
)

// fit returns the rates for which each member is drawn as often as wanted: fractions
// below one whose sum is that of all weight*copies, where copies are at least one,
// ascend, and are fewer than there are members. The greatest rate is one.
func fit(wanted []uint64, classes []drawn) []uint64 {
	most := classes[len(classes)-1].copies
	rates := make([]uint64, len(wanted))
	for i, x := range wanted {
		rates[i] = hazard(x)
	}
	normalize(rates)
	got := make([]uint64, len(wanted))
	for range fitRounds {
		inclusion(got, rates, most, classes)
		worst := uint64(0)
		for i := range rates {
			worst = max(worst, relative(got[i], wanted[i]))
			h, g := hazard(wanted[i]), hazard(got[i])
			g = min(max(g, h/4+1), h*4)
			rates[i] = mulDiv2(rates[i], h, g)
		}
		if worst < fitEnough {
			break
		}
		normalize(rates)
	}
	normalize(rates)
	return rates
}

// hazard returns -log2(1-x): the rate for which a clock has rung with that
// probability after a unit of time, near to what a fit ends with.
func hazard(x uint64) uint64 {
	x = min(max(x, 1), one-1)
	return max(1, fractionBits*one-log2(one-x))
}

func relative(got, want uint64) uint64 {
	if got > want {
		return mulDiv2(got-want, one, max(want, 1))
	}
	return mulDiv2(want-got, one, max(want, 1))
}

// mulDiv2 returns a*b/c, rounded down, at most 2^64-1.
func mulDiv2(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return 1<<64 - 1
	}
	q, _ := bits.Div64(hi, lo, c)
	return q
}

func normalize(rates []uint64) {
	most := uint64(1)
	for _, r := range rates {
		most = max(most, r)
	}
	for i, r := range rates {
		rates[i] = max(weightLeast, mulDiv(r, one, most))
	}
}

// inclusion sets got to the probabilities with which members of those rates are
// drawn: the integral over the time t at which a member's clock rings of the
// probability that fewer than copies others have rung, which is Poisson-binomial.
func inclusion(got, rates []uint64, most int, classes []drawn) {
	n := len(rates)
	clear(got)
	left := make([]uint64, n)      // probability that it has not rung
	before := make([]uint64, n)    // the same, a step before
	was := make([]uint64, n)       // the same, a step before
	rung := make([]uint64, most)   // probability that so many of all have rung
	others := make([]uint64, most) // the same, but for one member
	total := uint64(0)
	for _, c := range classes {
		total += c.weight
	}
	for i := range left {
		before[i], was[i] = one, total
	}
	// As many are to ring in each step, at first.
	end := uint64(n) * one
	if far := uint64(most+8)*one + 4*root(uint64(most), 0); far < end {
		end = far
	}
	step := end / fitSteps
	for t, steps := uint64(0), 0; steps < 4*fitSteps; steps++ {
		speed := uint64(0)
		for i, r := range rates {
			speed += mul(r, before[i])
		}
		speed = speed * 11 / 16 // ln 2
		dt := mulDiv2(step, one, max(1, speed))
		dt = min(dt, max(t/4, 1<<20)) // not beyond what the last step knew
		if steps == 0 {
			dt = mulDiv2(step, one, max(1, speed))
		}
		t = min(t+dt, 1<<62)
		for i, r := range rates {
			hi, lo := bits.Mul64(r, t)
			left[i] = 0
			if hi < 1<<fractionBits {
				left[i] = exp2(hi<<fractionBits | lo>>fractionBits)
			}
		}
		clear(rung)
		rung[0] = one
		for i := range left {
			join(rung, left[i])
		}
		reached := uint64(0)
		for i := range left {
			if left[i] > one/2 {
				leave(others, rung, left[i])
			} else {
				clear(others)
				others[0] = one
				for j := range left {
					if j != i {
						join(others, left[j])
					}
				}
			}
			sum, k, now := uint64(0), 0, uint64(0)
			for _, c := range classes { // by copies
				for ; k < c.copies; k++ {
					sum += others[k]
				}
				now += mul(min(sum, one), c.weight)
			}
			got[i] += mul(before[i]-left[i], (now+was[i])/2)
			was[i] = now
			reached = max(reached, now)
		}
		before, left = left, before
		if reached < one>>16 {
			break
		}
	}
}

// join adds one that has rung but for the probability left to those that have.
func join(rung []uint64, left uint64) {
	for k := len(rung) - 1; k > 0; k-- {
		rung[k] = mul(rung[k], left) + mul(rung[k-1], one-left)
	}
	rung[0] = mul(rung[0], left)
}

// leave undoes join, for one that is likely left.
func leave(others, rung []uint64, left uint64) {
	carry := uint64(0)
	for k := range rung {
		x := uint64(0)
		if gone := mul(carry, one-left); rung[k] > gone {
			x = (rung[k] - gone) << fractionBits / left
		}
		others[k] = min(x, one)
		carry = others[k]
	}
}
