package cluster

import (
	"fmt"
	"time"
)

// slowRate is below what an ordinary disk and network would notice, in bytes per second.
const slowRate = 1 << 20

// balance checks how replicas move, with the bounds of the schema: a spec from a file has not
// met the API server, nor its defaults.
func (r *resolver) balance() {
	b := &r.spec.Balance
	if rate := b.BytesPerSecond; rate != nil {
		const path = "spec.balance.bytesPerSecond"
		switch {
		case rate.CmpInt64(1) < 0:
			r.fail(path, fmt.Sprintf("at %s nothing would ever move", rate), "use for example 50Mi, or leave it out for no throttle")
		case rate.CmpInt64(slowRate) < 0:
			r.warn(path, fmt.Sprintf("%s bytes a second is little: 1Gi takes %s", rate, time.Duration((1<<30)/rate.Value())*time.Second), "use 1Mi or more, usually 50Mi")
		}
	}
	between := func(field string, n, least, most int32) {
		if n < least || n > most {
			r.fail("spec.balance."+field, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("use %d to %d", least, most))
		}
	}
	if b.CopiesPerBroker != 0 {
		between("copiesPerBroker", b.CopiesPerBroker, 1, 1000)
	}
	if b.CopiesPerCluster != 0 {
		between("copiesPerCluster", b.CopiesPerCluster, 1, 10000)
	}
	if b.HeadroomPercent != nil {
		between("headroomPercent", *b.HeadroomPercent, 0, 90)
	}
}
