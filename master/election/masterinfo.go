package election

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// MasterInfo describes a candidate as Mesos does: what the znode of a master holds, and frameworks are told.
func (c Candidate) MasterInfo() *mesos.MasterInfo {
	info := &mesos.MasterInfo{
		Id:       proto.String(c.ID),
		Ip:       proto.Uint32(littleEndianIP(c.Address)),
		Port:     proto.Uint32(uint32(c.Port)),
		Pid:      proto.String("master@" + net.JoinHostPort(c.Address, strconv.Itoa(c.Port))),
		Hostname: proto.String(c.Hostname),
		Version:  proto.String(c.Version),
		Address:  &mesos.Address{Hostname: proto.String(c.Hostname), Ip: proto.String(c.Address), Port: proto.Int32(int32(c.Port))},
		Capabilities: []*mesos.MasterInfo_Capability{
			{Type: mesos.MasterInfo_Capability_AGENT_UPDATE.Enum()},
			{Type: mesos.MasterInfo_Capability_AGENT_DRAINING.Enum()},
			{Type: mesos.MasterInfo_Capability_QUOTA_V2.Enum()},
		},
	}
	if c.Region != "" {
		info.Domain = &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
			Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: proto.String(c.Region)},
			Zone:   &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: proto.String(c.Zone)},
		}}
	}
	return info
}

// FromMasterInfo is MasterInfo the other way round, and takes also what older masters wrote, who told the address only as a
// number. It returns an error for what leads nowhere.
func FromMasterInfo(info *mesos.MasterInfo) (Candidate, error) {
	domain := info.GetDomain().GetFaultDomain()
	c := Candidate{
		ID: info.GetId(), Hostname: info.GetHostname(), Address: info.GetAddress().GetIp(), Port: int(info.GetPort()),
		Version: info.GetVersion(), Region: domain.GetRegion().GetName(), Zone: domain.GetZone().GetName(),
	}
	if port := info.GetAddress().GetPort(); port != 0 {
		c.Port = int(port)
	}
	if c.Hostname == "" {
		c.Hostname = info.GetAddress().GetHostname()
	}
	if c.Address == "" && info.GetIp() != 0 {
		var ip [4]byte
		binary.LittleEndian.PutUint32(ip[:], info.GetIp())
		c.Address = netip.AddrFrom4(ip).String()
	}
	if c.Hostname == "" {
		c.Hostname = c.Address
	}
	var errs []error
	for _, text := range []string{c.ID, c.Hostname, c.Version, c.Region, c.Zone} {
		if !utf8.ValidString(text) {
			errs = append(errs, fmt.Errorf("%q is not UTF-8", text))
		}
	}
	if net.ParseIP(c.Address) == nil {
		errs = append(errs, fmt.Errorf("address %q is not an IP address", c.Address))
	}
	if c.Port < 1 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("port %d is out of range", c.Port))
	}
	return c, errors.Join(errs...)
}

// littleEndianIP is the odd number that MasterInfo carries: an IPv4 address in network byte order, read as a
// little-endian integer. An IPv6 address has none.
func littleEndianIP(address string) uint32 {
	ip := net.ParseIP(address).To4()
	if ip == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(ip)
}
