package api

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/quota"
	"starling/master/mesos/resources"
	"starling/master/mesos/server"
)

// The quotas of roles, by operator calls and at the older endpoint. Spec: mesos-operator-api.md section A.1,
// mesos-http-endpoints.md section 2.

// quotaOf shows all quotas in order of roles, in the newer form and in the older one, which knows guarantees alone.
func (a *api) quotaOf(ctx context.Context) (*quota.QuotaStatus, error) {
	v, err := a.master.View(ctx)
	if err != nil {
		return nil, err
	}
	if v.QuotaFault != nil {
		return nil, v.QuotaFault
	}
	return quotaStatus(v), nil
}

func quotaStatus(v *master.View) *quota.QuotaStatus {
	status := &quota.QuotaStatus{}
	for _, role := range slices.Sorted(maps.Keys(v.Quotas)) {
		q := v.Quotas[role]
		info := &quota.QuotaInfo{Role: proto.String(role)}
		for _, name := range slices.Sorted(maps.Keys(q.Guarantee)) {
			info.Guarantee = append(info.Guarantee, &mesos.Resource{
				Name: proto.String(name), Type: mesos.Value_SCALAR.Enum(), Role: proto.String(resources.AnyRole),
				Scalar: &mesos.Value_Scalar{Value: proto.Float64(q.Guarantee[name].Float())},
			})
		}
		status.Infos = append(status.Infos, info)
		status.Configs = append(status.Configs, &quota.QuotaConfig{
			Role: proto.String(role), Guarantees: scalars(q.Guarantee), Limits: scalars(q.Limit),
		})
	}
	return status
}

func scalars(q allocator.Quantities) map[string]*mesos.Value_Scalar {
	out := make(map[string]*mesos.Value_Scalar, len(q))
	for name, amount := range q {
		out[name] = &mesos.Value_Scalar{Value: proto.Float64(amount.Float())}
	}
	return out
}

func (a *api) getQuota(ctx context.Context, _ *operator.Call) (*operator.Response, error) {
	status, err := a.quotaOf(ctx)
	if err != nil {
		return nil, err
	}
	return &operator.Response{GetQuota: &operator.Response_GetQuota{Status: status}}, nil
}

func (a *api) updateQuota(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.UpdateQuota(ctx, call.GetUpdateQuota().GetQuotaConfigs(), call.GetUpdateQuota().GetForce())
}

func (a *api) setQuota(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.SetQuota(ctx, call.GetSetQuota().GetQuotaRequest())
}

func (a *api) removeQuota(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.RemoveQuota(ctx, call.GetRemoveQuota().GetRole())
}

// quota serves /quota and what is below it: GET shows all quotas, POST sets that of a role that has none, DELETE /quota/ROLE
// removes one.
func (a *api) quota(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	var err error
	switch c.Method() {
	case fiber.MethodGet, fiber.MethodHead:
		status, err := a.quotaOf(ctx)
		if err != nil {
			return a.fail(c, err)
		}
		body, err := codec.JSONv0.Marshal(status)
		if err != nil {
			return err
		}
		return server.WriteJSON(c, body)
	case fiber.MethodPost:
		request := new(quota.QuotaRequest)
		if err := readQuota(c.Body(), request); err != nil {
			return err
		}
		err = a.master.SetQuota(ctx, request)
	case fiber.MethodDelete:
		role, fault := quotaRole(c)
		if fault != nil {
			return fault
		}
		err = a.master.RemoveQuota(ctx, role)
	default:
		return notAllowed(c, "GET, POST, DELETE")
	}
	if err != nil {
		return a.fail(c, err)
	}
	return c.Status(fiber.StatusOK).Send(nil)
}

func readQuota(body []byte, request *quota.QuotaRequest) error {
	err := codec.JSONv0.Unmarshal(body, request)
	if _, syntax := errors.AsType[*codec.SyntaxError](err); syntax {
		return server.Errorf(fiber.StatusBadRequest, "Failed to parse set quota request JSON: %v", err)
	} else if err != nil {
		return server.Errorf(fiber.StatusBadRequest, "Failed to validate set quota request JSON: %v", err)
	}
	return nil
}

// quotaRole is the role that the path of a DELETE names.
func quotaRole(c *fiber.Ctx) (string, error) {
	role := strings.Trim(utils.CopyString(c.Params("*")), "/")
	tokens := 2
	if role != "" {
		tokens += strings.Count(role, "/") + 1
	}
	if tokens != 3 {
		return "", server.Errorf(fiber.StatusBadRequest, "Failed to parse request path '/master/quota/%s': 3 tokens ('master', 'quota', 'role') required, found %d token(s)", role, tokens)
	}
	role, err := url.PathUnescape(role)
	if err != nil {
		return "", server.Errorf(fiber.StatusBadRequest, "Failed to parse request path: %v", err)
	}
	return role, nil
}
