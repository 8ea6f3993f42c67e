// The test bench: moe_layer on the tokens of every task, each with the pointer to its router, against what the emulator
// computed. `moe_test FOLDER` reads the arrays of that folder, writes outputs.bin and fails on any bit that differs.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "moe.hpp"

namespace {

template <class T> std::vector<T> read(const std::string &path) {
    std::ifstream stream(path, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const T *first = reinterpret_cast<const T *>(bytes.data());
    return std::vector<T>(first, first + bytes.size() / sizeof(T));
}

} // namespace

int main(int argc, char **argv) {
    const std::string folder = argc > 1 ? std::string(argv[1]) + "/" : "";
    const auto tokens = read<std::int32_t>(folder + "tokens.bin");
    const auto router_weights = read<std::int16_t>(folder + "router_weights.bin");
    const auto router_biases = read<std::int32_t>(folder + "router_biases.bin");
    const auto expert_weights = read<std::int16_t>(folder + "expert_weights.bin");
    const auto expert_biases = read<std::int32_t>(folder + "expert_biases.bin");
    const auto expected = read<std::int32_t>(folder + "expected.bin");
    const std::size_t tasks = router_biases.size() / EXPERTS, count = tokens.size() / WIDTH;
    if (tasks == 0 || count == 0 || count > TOKENS || expected.size() != tasks * count * WIDTH) {
        std::fprintf(stderr, "%s: the arrays are missing, or do not belong to this layer\n", folder.c_str());
        return 2;
    }
    std::vector<std::int32_t> outputs(expected.size());
    for (std::size_t task = 0; task < tasks; ++task)
        moe_layer(tokens.data(), router_weights.data() + task * EXPERTS * WIDTH, router_biases.data() + task * EXPERTS,
                  expert_weights.data(), expert_biases.data(), outputs.data() + task * count * WIDTH, int(count),
                  ROUTER_TOP_K[task], ROUTER_CAPACITY[task]);
    std::ofstream(folder + "outputs.bin", std::ios::binary)
        .write(reinterpret_cast<const char *>(outputs.data()), std::streamsize(outputs.size() * sizeof(outputs[0])));
    std::size_t different = 0;
    for (std::size_t index = 0; index < outputs.size(); ++index)
        different += outputs[index] != expected[index];
    std::printf("%zu of %zu values differ from the emulator's\n", different, outputs.size());
    return different == 0 ? 0 : 1;
}
