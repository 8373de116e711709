package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"runtime"
	"slices"

	digest "github.com/opencontainers/go-digest"
)

const (
	loadAddress = 0x400000
	headers     = 64 + 56 // of the file and of its one segment
)

// Pause is the program that holds the namespaces of a pod: it waits for signals and does nothing, in one page of memory.
// (A Go program would take megabytes, once for each pod.) The kernel ends it with SIGKILL; the kubelet sends no other.
func Pause() ([]byte, error) {
	var machine uint16
	var code []byte
	switch runtime.GOARCH {
	case "amd64":
		machine = 62
		code = []byte{
			0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, SYS_pause
			0x0f, 0x05, // syscall
			0xeb, 0xf7, // jmp to the start
		}
	case "arm64":
		machine = 183
		code = binary.LittleEndian.AppendUint32(nil, 0xd2800000) // mov x0, #0: no descriptors
		for _, word := range []uint32{
			0xd2800001, // mov x1, #0
			0xd2800002, // mov x2, #0: no timeout
			0xd2800003, // mov x3, #0: no signal mask
			0xd2800928, // mov x8, #73: ppoll
			0xd4000001, // svc #0
			0x17fffffb, // b to the start
		} {
			code = binary.LittleEndian.AppendUint32(code, word)
		}
	default:
		return nil, errors.New("no pause program for " + runtime.GOARCH)
	}
	return elf(machine, code), nil
}

// elf wraps code into a static executable of one segment.
func elf(machine uint16, code []byte) []byte {
	var out bytes.Buffer
	out.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	size := uint64(headers + len(code))
	for _, field := range []any{
		uint16(2), machine, uint32(1), uint64(loadAddress + headers), // executable; version; entry
		uint64(64), uint64(0), uint32(0), // program header offset; no sections; flags
		uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(loadAddress), uint64(loadAddress), size, size, uint64(0x1000), // load, r-x
	} {
		_ = binary.Write(&out, binary.LittleEndian, field) // a buffer takes everything
	}
	out.Write(code)
	return out.Bytes()
}

func digests(sum [32]byte) []digest.Digest {
	return []digest.Digest{digest.NewDigestFromBytes(digest.SHA256, sum[:])}
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
