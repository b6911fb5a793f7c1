// What tch has no call for: linear layers in f32 by oneDNN with their derivatives, and a backward
// pass that starts from the gradient of a tensor.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#if defined(__x86_64__) && __has_include(<fbgemm/Utils.h>)
#include <fbgemm/Utils.h>
#define MEHL_SOUP_FBGEMM
#endif

#include <algorithm>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Why the last call of this thread failed.
thread_local std::string failure;

template <typename Work>
int guarded(Work work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    failure = error.what();
  } catch (...) {
    failure = "unknown exception";
  }
  return 1;
}

using LinearPointwise = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                   std::string_view, c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);

const c10::TypedOperatorHandle<LinearPointwise>& linear_pointwise() {
  static const auto handle =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<LinearPointwise>();
  return handle;
}

// `a b^T + bias` of a contiguous a [.., n], and b [m, n] that may be a transposed view.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias) {
  return linear_pointwise().call(a, b, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

// A contiguous [columns, rows] of a contiguous [rows, columns]. libtorch's own copy uses one thread.
at::Tensor transposed(const at::Tensor& matrix) {
#ifdef MEHL_SOUP_FBGEMM
  constexpr int64_t kRows = 64;
  const int64_t rows = matrix.size(0);
  const int64_t columns = matrix.size(1);
  at::Tensor result = at::empty({columns, rows}, matrix.options());
  const float* from = matrix.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  at::parallel_for(0, (rows + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kRows;
      const int64_t count = std::min(kRows, rows - first);
      fbgemm::transpose_simd<float>(count, columns, from + first * columns, columns, to + first, rows);
    }
  });
  return result;
#else
  return matrix.t().contiguous();
#endif
}

// Weights are another tensor in every iteration, so that they are never worth packing.
struct Linear : public torch::autograd::Function<Linear> {
  static Variable forward(AutogradContext* context, const Variable& inputs, const Variable& weight,
                          const std::optional<Variable>& bias) {
    context->save_for_backward({inputs, weight});
    context->saved_data["has_bias"] = bias.has_value();
    return product(inputs, weight, bias);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& weight = saved[1];
    const auto gradient = gradients[0].contiguous();
    const auto rows = gradient.view({-1, gradient.size(-1)});
    variable_list result(3);
    if (context->needs_input_grad(0)) {
      result[0] = product(gradient, weight.t(), std::nullopt);
    }
    if (context->needs_input_grad(1)) {
      const auto inputs = saved[0].reshape({-1, saved[0].size(-1)});
      result[1] = product(transposed(rows), inputs.t(), std::nullopt);
    }
    // A bias that is not there is no input.
    if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) {
      result[2] = rows.sum(0);
    }
    return result;
  }
};

}  // namespace

extern "C" {

// Why the last call of this thread answered 1; valid until the next.
const char* mehl_soup_torch_failure() {
  return failure.c_str();
}

// Whether this libtorch has oneDNN's linear layers.
int mehl_soup_has_onednn() {
  int found = 0;
  guarded([&] {
    found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""}).has_value() ? 1 : 0;
    if (found != 0) {
      linear_pointwise();
    }
  });
  return found;
}

// `*result = inputs weight^T + bias`, differentiable; f32 on the host. `bias` may be null.
int mehl_soup_onednn_linear(const at::Tensor* inputs, const at::Tensor* weight, const at::Tensor* bias,
                            at::Tensor** result) {
  return guarded([&] {
    std::optional<Variable> given;
    if (bias != nullptr) {
      given = *bias;
    }
    *result = new at::Tensor(Linear::apply(*inputs, *weight, given));
  });
}

// Gradients of `count` inputs from those of an output. Entries of `results` are undefined tensors
// where the output does not depend on an input. The graph is freed.
int mehl_soup_backward(const at::Tensor* output, const at::Tensor* gradient, const at::Tensor* const* inputs,
                       size_t count, at::Tensor** results) {
  return guarded([&] {
    torch::autograd::edge_list edges;
    edges.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      edges.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
    }
    const auto found = torch::autograd::Engine::get_default_engine().execute(
        {torch::autograd::impl::gradient_edge(*output)}, {*gradient}, false, false, false, edges);
    std::vector<at::Tensor*> owned;
    owned.reserve(count);
    for (const auto& tensor : found) {
      owned.push_back(new at::Tensor(tensor));
    }
    std::copy(owned.begin(), owned.end(), results);
  });
}
}
