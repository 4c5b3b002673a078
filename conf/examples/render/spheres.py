"""Five glossy spheres that go round and bounce; twelve frames are one turn. The scene of spheres.pov, for Blender.

    blender --background --factory-startup --python spheres.py -- IMAGE FRAME WIDTH HEIGHT SAMPLES
"""

import math
import sys

import bpy

COLOURS = [(0.80, 0.10, 0.08), (0.85, 0.50, 0.05), (0.15, 0.55, 0.15), (0.10, 0.30, 0.80), (0.55, 0.15, 0.65)]


def material(colour, roughness):
    made = bpy.data.materials.new("colour")
    made.use_nodes = True
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*colour, 1)
    shader.inputs["Roughness"].default_value = roughness
    return made


def build(frame):
    """Puts the scene together as it is at a frame."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    bpy.ops.mesh.primitive_plane_add(size=40)
    bpy.context.object.data.materials.append(material((0.25, 0.25, 0.25), 0.3))
    for i, colour in enumerate(COLOURS):
        angle = 2 * math.pi * (i / 5 + frame / 12)
        place = (2 * math.cos(angle), 2 * math.sin(angle), 0.6 + 0.9 * abs(math.sin(angle + i)))
        bpy.ops.mesh.primitive_uv_sphere_add(radius=0.6, location=place)
        bpy.ops.object.shade_smooth()
        bpy.context.object.data.materials.append(material(colour, 0.15))
    bpy.ops.object.light_add(type="AREA", location=(4, -5, 8), rotation=(0.65, 0, 0.67))
    bpy.context.object.data.energy = 500
    bpy.context.object.data.size = 2
    bpy.ops.object.camera_add(location=(0, -6.5, 3.2), rotation=(1.2, 0, 0))
    scene.camera = bpy.context.object
    scene.camera.data.lens = 32
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.27, 0.45, 0.79, 1)
    return scene


def main():
    image, *numbers = sys.argv[sys.argv.index("--") + 1 :]
    frame, width, height, samples = map(int, numbers)
    scene = build(frame)
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = False
    scene.view_settings.view_transform = "Standard"
    scene.cycles.seed = frame
    scene.render.resolution_x = width
    scene.render.resolution_y = height
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.render.filepath = image
    bpy.ops.render.render(write_still=True)


main()
