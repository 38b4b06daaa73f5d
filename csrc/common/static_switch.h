// SPDX-License-Identifier: Apache-2.0
//
// From options known at run time to template arguments, in one line per option:
//
//   static_switch([&](auto tracking, auto rule) { return update<tracking(), rule()>; },
//                 among<Tracking::none, Tracking::measured>(tracking),
//                 among<UpdateRule::sgd, UpdateRule::nesterov>(rule));
//
// The function is instantiated for every combination and called with one std::integral_constant
// per option. A value must be among those listed: the last one is taken without being compared.
#pragma once

#include <type_traits>

namespace d3 {

template <class Value, Value... kValues>
struct Among {
  Value value;
};

template <auto kFirst, auto... kOthers>
inline __attribute__((always_inline)) constexpr Among<decltype(kFirst), kFirst, kOthers...> among(
    decltype(kFirst) value) {
  return {value};
}

template <class Function>
inline __attribute__((always_inline)) auto static_switch(const Function& function) {
  return function();
}

template <class Function, class Value, Value kFirst, Value... kOthers, class... Options>
inline __attribute__((always_inline)) auto static_switch(const Function& function,
                                                         Among<Value, kFirst, kOthers...> option,
                                                         Options... options) {
  if constexpr (sizeof...(kOthers) > 0) {
    if (option.value != kFirst) {
      return static_switch(function, Among<Value, kOthers...>{option.value}, options...);
    }
  }
  const std::integral_constant<Value, kFirst> first{};
  return static_switch([&](auto... later) { return function(first, later...); }, options...);
}

}  // namespace d3
