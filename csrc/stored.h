// SPDX-License-Identifier: Apache-2.0
//
// How numbers lie in memory: float and double as they are, the half types bfloat16 and float16 as
// 16 bits that are widened to float for every computation and rounded to nearest even when stored;
// and how a weight of a half type keeps what storing it took off (Kahan's remainder):
//
//   x = theta + c,   theta <- round(x),   c <- round(x - theta)
//
// Conversions are integer arithmetic, the same bits on every CPU; a GPU has instructions for them.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "step_math.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace d3 {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

// Of a stored type: torch's name; the type T that it is computed in; whether tracked weights keep a
// remainder; and how fine such weights are, `relative` to themselves and `absolute`.
template <class S>
struct Stored {
  using T = S;
  static constexpr const char* kName = sizeof(S) == 4 ? "float32" : "float64";
  static constexpr bool kHalf = false;
  static constexpr double kRelative = std::numeric_limits<S>::epsilon(), kAbsolute = 0;
};
template <>
struct Stored<Bf16> {
  using T = float;
  static constexpr const char* kName = "bfloat16";
  static constexpr bool kHalf = true;
  static constexpr double kRelative = 0x1p-17, kAbsolute = 0;
  static constexpr float kEpsilon = 0x1p-7f;  // as torch.finfo has it
};
template <>
struct Stored<F16> {
  using T = float;
  static constexpr const char* kName = "float16";
  static constexpr bool kHalf = true;
  static constexpr double kRelative = 0x1p-22, kAbsolute = 0x1p-25;
  static constexpr float kEpsilon = 0x1p-10f;
};

// The types of a group's arrays. Gradients and remainders are stored as the weights are.
template <class W, class M, class R>
struct Storage {
  using Weight = W;
  using Momentum = M;
  using Reference = R;
  using T = typename Stored<W>::T;
};

// Which of them there are kernels for.
template <class... K>
struct Storages {};
using CpuStorages =
    Storages<Storage<float, float, float>, Storage<float, float, Bf16>,
             Storage<double, double, double>, Storage<Bf16, Bf16, Bf16>, Storage<Bf16, float, Bf16>,
             Storage<F16, F16, F16>, Storage<F16, float, F16>>;
using CudaStorages =
    Storages<Storage<float, float, float>, Storage<float, float, Bf16>, Storage<Bf16, Bf16, Bf16>,
             Storage<Bf16, float, Bf16>, Storage<F16, F16, F16>, Storage<F16, float, F16>>;

// The same by torch's names, such as "bfloat16".
struct Dtypes {
  std::string weight, momentum, reference;
};

inline bool is_half(const std::string& name) {
  return name == Stored<Bf16>::kName || name == Stored<F16>::kName;
}

// Calls visit(K()) for the storage of these names; false where the list does not have it.
template <class... K, class Visit>
bool visit_storage(Storages<K...>, const Dtypes& types, const Visit& visit) {
  const auto visit_if = [&](auto storage) {
    using S = decltype(storage);
    const bool named = types.weight == Stored<typename S::Weight>::kName &&
                       types.momentum == Stored<typename S::Momentum>::kName &&
                       types.reference == Stored<typename S::Reference>::kName;
    if (named) visit(storage);
    return named;
  };
  return (visit_if(K()) || ...);
}

// Of V, the unsigned integers of as many bits; vectors of the CPU backend add theirs.
template <class V>
struct WordsFor;
template <>
struct WordsFor<float> {
  using Type = uint32_t;
};
template <class V>
using WordsOf = typename WordsFor<V>::Type;

template <class To, class From>
D3_HD To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

template <class V>
D3_HD V magnitude(V x) {
  return same_bits<V>(same_bits<WordsOf<V>>(x) & 0x7fffffffu);
}

// Conversions between a half type and float: the 16 bits are the low half of each word.
template <class V>
D3_HD WordsOf<V> encode_bf16(V x) {
  using U = WordsOf<V>;
  const U u = same_bits<U>(x);
  const U nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return x == x ? nearest : (u >> 16) | 0x40u;
}

template <class V>
D3_HD V decode_bf16(WordsOf<V> bits) {
  return same_bits<V>(bits << 16);
}

// Below the least normal float16, adding 1/2 rounds to a multiple of its least subnormal number.
template <class V>
D3_HD WordsOf<V> encode_f16(V x) {
  using U = WordsOf<V>;
  const U all = same_bits<U>(x);
  const U u = all & 0x7fffffffu;
  const U normal = (u - 0x38000000u + 0xfffu + ((u >> 13) & 1u)) >> 13;
  const U small = same_bits<U>(same_bits<V>(u) + 0.5f) - 0x3f000000u;
  const U infinite = U() + 0x7c00u;
  const U nan = (u >> 13 & 0x3ffu) | 0x7e00u;
  const U finite = u < 0x38800000u ? small : normal;
  const U large = u > 0x7f800000u ? nan : infinite;
  return (u < 0x47800000u ? finite : large) | ((all >> 16) & 0x8000u);
}

template <class V>
D3_HD V decode_f16(WordsOf<V> bits) {
  using U = WordsOf<V>;
  const U magnitude = (bits & 0x7fffu) << 13;
  const U normal = magnitude + 0x38000000u;
  const U small = same_bits<U>(same_bits<V>(magnitude + 0x38800000u) - 0x1p-14f);
  const U quiet = magnitude > 0x0f800000u ? U() + 0x400000u : U();
  const U special = (magnitude + 0x70000000u) | quiet;
  const U finite = magnitude < 0x00800000u ? small : normal;
  return same_bits<V>((magnitude < 0x0f800000u ? finite : special) | ((bits & 0x8000u) << 16));
}

template <class S, class V>
D3_HD WordsOf<V> encode(V x) {
  if constexpr (std::is_same_v<S, Bf16>) {
    return encode_bf16(x);
  } else {
    return encode_f16(x);
  }
}

template <class S, class V>
D3_HD V decode(WordsOf<V> bits) {
  if constexpr (std::is_same_v<S, Bf16>) {
    return decode_bf16<V>(bits);
  } else {
    return decode_f16<V>(bits);
  }
}

// One number, as it is stored and as it is computed with.
template <class S>
D3_HD typename Stored<S>::T widen(S x) {
  if constexpr (!Stored<S>::kHalf) {
    return x;
  } else {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<S, F16>) return __half2float(__ushort_as_half(x.bits));
#endif
    return decode<S, float>(x.bits);
  }
}

template <class S>
D3_HD S narrow(typename Stored<S>::T x) {
  if constexpr (!Stored<S>::kHalf) {
    return x;
  } else {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<S, F16>) return {__half_as_ushort(__float2half_rn(x))};
    if constexpr (std::is_same_v<S, Bf16>) return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#endif
    return {static_cast<uint16_t>(encode<S>(x))};
  }
}

// The weight that steps are taken from. A remainder of more than half a spacing is not of this
// theta, which was changed since, and counts as 0: half a spacing is at most half an epsilon of the
// weight. Written as `<` of a little more, for both have no digits in between, so that an infinite
// theta refuses its infinite remainder.
template <class S, class V>
D3_HD V whole_weight(V theta, V c) {
  constexpr float kMost = Stored<S>::kEpsilon / 2 * (1 + Stored<S>::kEpsilon / 4);
  return theta + (magnitude(c) < magnitude(theta) * kMost ? c : V());
}

// How far storing a unit's weights may move its norm in one step, which stores them twice.
template <class S>
D3_HD double storing_error(double weight_norm, int64_t elements) {
  if constexpr (Stored<S>::kAbsolute == 0) return 2 * Stored<S>::kRelative * weight_norm;
  return 2 * (Stored<S>::kRelative * weight_norm +
              Stored<S>::kAbsolute * sqrt(static_cast<double>(elements)));
}

}  // namespace d3
