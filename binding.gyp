{
  # Runs the CMake build, so that `node-gyp rebuild`, node-gyp-build and prebuildify work. The action always runs,
  # because it has no inputs. CMake decides which files are out of date.
  "targets": [{
    "target_name": "llama_headstart",
    "type": "none",
    "actions": [{
      "action_name": "cmake",
      "inputs": [],
      "outputs": ["<(PRODUCT_DIR)/llama_headstart.node"],
      "action": ["node", "bin/lib/build-native.mjs", "--output", "<(PRODUCT_DIR)"]
    }]
  }]
}
