// Package wide computes the BLAKE3 chaining values of 16 chunks, or of 16 parents,
// in the time of little more than one, on processors that have AVX-512. How they
// form a tree is for its caller to know, and what to do on other processors.
package wide

const (
	// Lanes is how many chunks or parents are computed at once.
	Lanes = 16

	// StripeSize is the length in bytes of Lanes chunks.
	StripeSize = Lanes * chunkSize
)

const (
	chunkSize = 1024
	blockSize = 64
)

// CVs are the chaining values of neighboring nodes, in order.
type CVs = [Lanes][8]uint32

// Chunks sets the first cvs to the chaining values of the chunks of data, of which
// the first is number counter of the content. data is 1 to StripeSize bytes; its
// last chunk may be short. The rest of cvs is undefined.
func Chunks(cvs *CVs, data []byte, counter uint64) {
	if len(data) == StripeSize {
		chunks(cvs, &data[0], counter, 0, 0, 0)
		return
	}
	var stripe [StripeSize]byte
	last := len(data) - 1
	copy(stripe[:], data)
	chunks(cvs, &stripe[0], counter,
		1<<(last/chunkSize), uint64(last%chunkSize/blockSize), uint64(last%blockSize+1))
}

// Parents replaces count chaining values by those of their parents, and returns
// how many those are. An odd last one has no sibling yet and stays as it is.
// Beyond count, cvs has room for at least 2*Lanes more: they are overwritten.
func Parents(cvs [][8]uint32, count int) int {
	odd := cvs[count-1]
	for i := 0; i+1 < count; i += 2 * Lanes {
		parents((*CVs)(cvs[i/2:]), (*[2 * Lanes][8]uint32)(cvs[i:]))
	}
	if count%2 != 0 {
		cvs[count/2] = odd
	}
	return (count + 1) / 2
}
