// Command etcdload puts into etcd, for the comparison in cli/e2e. It is a module of
// its own, so that the program's does not depend on etcd's client.
//
//	etcdload -endpoints HOST:PORT,… -connections N -clients N -count N
//	    puts count values, and prints {"seconds","p50_ms","p99_ms","max_ms"}
//	etcdload -endpoints HOST:PORT,… -lines
//	    for each line of stdin puts one value, however often it has to be tried,
//	    and prints a line when it is committed
//	etcdload -endpoints HOST:PORT,… -leader
//	    prints which of the endpoints leads
//
// Keys have 8 bytes, values 256, as in etcd's own benchmark. A client goes on to
// its next value when the one before is committed.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const valueBytes = 256

func main() {
	endpoints := flag.String("endpoints", "", "`HOST:PORT,…` of the members")
	connections := flag.Int("connections", 1, "how many")
	clients := flag.Int("clients", 1, "puts at work at a time")
	count := flag.Int("count", 0, "puts in all")
	first := flag.Uint64("first", 0, "number of the first key")
	lines := flag.Bool("lines", false, "see above")
	leader := flag.Bool("leader", false, "see above")
	flag.Parse()
	var err error
	switch list := strings.Split(*endpoints, ","); {
	case *lines:
		err = putLines(list)
	case *leader:
		err = printLeader(list)
	default:
		err = load(list, *connections, *clients, *count, *first)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func connect(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: time.Second, DialKeepAliveTimeout: time.Second})
}

func key(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func load(endpoints []string, connections, clients, count int, first uint64) error {
	conns := make([]*clientv3.Client, connections)
	for i := range conns {
		c, err := connect(endpoints)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Get(context.Background(), "begin"); err != nil { // connects
			return err
		}
		conns[i] = c
	}
	var (
		next    atomic.Uint64
		mu      sync.Mutex
		latency []time.Duration
		failed  error
		tasks   sync.WaitGroup
	)
	value := strings.Repeat("v", valueBytes)
	began := time.Now()
	for i := range clients {
		c := conns[i%connections]
		tasks.Go(func() {
			var own []time.Duration
			var err error
			for n := next.Add(1); n <= uint64(count) && err == nil; n = next.Add(1) {
				at := time.Now()
				_, err = c.Put(context.Background(), key(first+n), value)
				own = append(own, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			latency = append(latency, own...)
			if err != nil {
				failed = err
			}
		})
	}
	tasks.Wait()
	took := time.Since(began)
	if failed != nil {
		return failed
	}
	slices.Sort(latency)
	at := func(q float64) float64 {
		return latency[min(len(latency)-1, int(q*float64(len(latency))))].Seconds() * 1e3
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"seconds": took.Seconds(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)})
}

// tryWait is how long one try may take before the next, perhaps at another
// member: a put that went to a leader that died is answered by nobody.
const tryWait = 100 * time.Millisecond

func putLines(endpoints []string) error {
	c, err := connect(endpoints)
	if err != nil {
		return err
	}
	defer c.Close()
	value := strings.Repeat("v", valueBytes)
	in := bufio.NewScanner(os.Stdin)
	for n := uint64(0); in.Scan(); n++ {
		for done := false; !done; {
			ctx, cancel := context.WithTimeout(context.Background(), tryWait)
			_, err := c.Put(ctx, key(n), value)
			cancel()
			done = err == nil
		}
		fmt.Println(n)
	}
	return in.Err()
}

func printLeader(endpoints []string) error {
	c, err := connect(endpoints)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, e := range endpoints {
		if s, err := c.Status(ctx, e); err == nil && s.Leader == s.Header.MemberId {
			fmt.Println(e)
			return nil
		}
	}
	return errors.New("no endpoint leads")
}
