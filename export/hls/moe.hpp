// A layer of experts: every token goes to those of EXPERTS that its task's router chooses, and gets the sum of what
// they give, weighted by their gates (M3ViT, NeurIPS 2022).
#pragma once

#include "moe_config.hpp"

// Compute the layer for `count` tokens, at most TOKENS. A token goes to `top_k` experts, at most TOP_K, and an expert takes
// `capacity` tokens at most: ROUTER_TOP_K and ROUTER_CAPACITY have each task's. All arrays lie in the board's memory, row after row:
//   tokens, outputs   [count][WIDTH], ACTIVATION_FRACTION binary places
//   router_weights    [EXPERTS][WIDTH], ROUTER_FRACTION; router_biases [EXPERTS], BIAS_FRACTION
//   expert_weights    for each expert [HIDDEN][WIDTH], EXPAND_FRACTION, then [WIDTH][HIDDEN], PROJECT_FRACTION
//   expert_biases     for each expert [HIDDEN], then [WIDTH], BIAS_FRACTION
// Another task is another pointer to a router, and nothing else: switching tasks loads and waits for nothing. The
// router of a task that does not reach an expert has the lowest bias there.
void moe_layer(const std::int32_t *tokens, const std::int16_t *router_weights, const std::int32_t *router_biases,
               const std::int16_t *expert_weights, const std::int32_t *expert_biases, std::int32_t *outputs, int count,
               int top_k, int capacity);
